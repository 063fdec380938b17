from .frontier import Touched as Touched
from .modes import INFERENCE as INFERENCE
from .modes import Answer as Answer
from .modes import Kept as Kept
from .modes import Nodes as Nodes
from .modes import Question as Question
from .modes import answer as answer
from .modes import predict as predict
