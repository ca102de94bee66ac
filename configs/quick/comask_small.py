"""Small CoMask on photographs of your own.

`projects/CoMask/look.py` draws how a trained model found its boxes.
"""

from ..d2.common.comask import to_comask
from .common.comask import head, neck
from .common.photographs import channels, dataloader, lr_multiplier, model, optimizer, train

to_comask(model, neck(channels.fpn), head)
train.max_iter = 600  # dense offsets take longer than a box regressor
