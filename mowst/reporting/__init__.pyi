from .progress import Display as Display
from .study_page import write_page as write_page
from .table import catalogue_table as catalogue_table
from .table import closing as closing
from .table import scores_table as scores_table
