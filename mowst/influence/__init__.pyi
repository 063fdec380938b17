from .counts import Counts as Counts
from .last_layer import LastLayer as LastLayer
from .last_layer import read_out as read_out
from .last_layer import refit as refit
from .network import Network as Network
from .spoken import Spoke as Spoke
from .spoken import why as why
