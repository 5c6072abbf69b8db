"""Under torchrun: batch norm and gradients over ranks, against one process that sees all samples."""

from __future__ import annotations

import copy

import torch
from torch import nn

from medseg.losses import build_loss, over_ranks
from medseg.training.distributed import ranks_of_torchrun
from medseg.training.synced_batch_norm import SyncedBatchNorm, with_synced_batch_norm


def main() -> None:
    with ranks_of_torchrun("cpu") as (ranks, device):
        torch.manual_seed(0)
        one = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        several = with_synced_batch_norm(copy.deepcopy(one), device)
        assert sum(isinstance(module, SyncedBatchNorm) for module in several.modules()) == 2
        assert one.state_dict().keys() == several.state_dict().keys()
        images, labels = torch.randn(5, 1, 9, 8) * 3 + 7, torch.randint(0, 2, (5, 1, 7, 6))
        mine = [n for part in ranks.parts(5, 1) for n in part.numbers]
        build_loss("dice_ce")(one(images), labels).backward()
        for _ in range(2):  # the second time with the same statistics, so that the buckets are filled anew
            several.zero_grad()
            loss = over_ranks(build_loss("dice_ce"), ranks.all_sum)(several(images[mine]), labels[mine])
            loss.backward()
            ranks.sum_gradients(several)
        for (name, wanted), found in zip(one.named_parameters(), several.parameters(), strict=True):
            torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6, msg=name)
        one(images)
        for (name, wanted), found in zip(one.named_buffers(), several.buffers(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(several.eval()(images), one.eval()(images))
        half = several.train()[1](images.bfloat16().expand(-1, 3, -1, -1)[mine])
        assert half.dtype == torch.bfloat16

        assert ranks.agreed(float(ranks.rank + 1), 15 * ranks.rank) == (1.0, 15)
        assert ranks.from_first(lambda: f"from rank {ranks.rank}") == "from rank 0"
        with torch.no_grad():
            one[0].weight.fill_(ranks.rank)
        ranks.same_weights(one)
        assert not one[0].weight.any()


if __name__ == "__main__":
    main()
