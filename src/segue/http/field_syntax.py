"""The syntax of header fields, as patterns: one definition for all that read or write heads (RFC 9110, 5).

It is h11's, which takes in a value what is neither white space nor NUL: servers send odd bytes, and none of these can
be taken for the end of a line. Not here: what a head may consist of.
"""

from __future__ import annotations

import re
from typing import Final

#: A method, or the name of a field.
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: The value of a field as it is received, with the white space around it.
VALUE: Final = rb"[^\x00\n\x0b\x0c\r]*"
#: All bytes of which a value may consist: what is left of a head without them is the ends of its lines, if it is one.
TEXT: Final = bytes(set(range(256)) - set(b"\x00\n\x0b\x0c\r"))

#: What may be sent as a name, and as a value: a value has no white space at its ends.
NAME_TO_SEND: Final = re.compile(TOKEN)
VALUE_TO_SEND: Final = re.compile(rb"(?:[^\x00\t-\r ](?:[^\x00\n\x0b\x0c\r]*[^\x00\t-\r ])?)?")
