"""Two classes on crops of single persons; `segroi data person-crops` makes them."""

from ....configs.common.low_cost import person_crops as _recipe
from ....configs.d2.common.low_cost import (
    dataloader,
    lr_multiplier,
    maps,
    model,
    optimizer,
    train,
)

model.sem_seg_head.num_classes = 2
dataloader.train.dataset.names = "segroi_person_crops_train"
dataloader.test.dataset.names = "segroi_person_crops_val"
dataloader.train.total_batch_size = _recipe.batch_size
train.update(max_iter=_recipe.max_iter, eval_period=_recipe.eval_period)
