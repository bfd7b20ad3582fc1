from segue.client import AsyncClient as AsyncClient
from segue.client import Client as Client

__version__: str
