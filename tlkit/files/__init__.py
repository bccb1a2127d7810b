"""files: to be described."""

from .atomic import cache_folder as cache_folder
from .atomic import folder_in_making as folder_in_making
from .atomic import put as put
from .atomic import remove as remove
from .atomic import staging as staging
from .atomic import write_synced as write_synced
from .digests import damages as damages
from .digests import describe_files as describe_files
from .digests import sha256_of as sha256_of
