"""CoMask from scratch on scenes of handwritten digits, minutes on two CPU cores.

    python scripts/lazyconfig_train_net.py --config-file configs/quick/comask_digits.py \
        train.output_dir=output/comask_digits

`model.roi_heads.average_loss_weight=1.0` trains the averaged box too; `model.roi_heads.box=uniform`
averages without the masks' weights.
"""

from ..d2.common.comask import to_comask as _to_comask
from .common.comask import head as _head
from .common.comask import neck as _neck
from .common.small import channels as _channels
from .common.small import dataloader, lr_multiplier, model, optimizer, train

_to_comask(model, _neck(_channels.fpn), _head)

# One run on a CPU, scenes as drawn by default: box AP 32.8, mask AP 23.1.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 32.8, 6.0], ["segm", "AP", 23.1, 6.0]])
