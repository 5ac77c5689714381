"""A training script as a user has it: a 3-D GAN in `__main__`, with two optimizers, a scheduler and random numbers.
Run by test_torch_gan.py: first | resume, URL of the catalog. Prints the losses of steps 4 to 6."""

import json
import sys
import warnings

import torch
from torch import nn

from catalog_core import Catalog


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(8, 4 * 3 * 3 * 3)
        self.grow = nn.Sequential(
            nn.ConvTranspose3d(4, 4, 4, stride=2, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 3, padding=1)
        )

    def forward(self, latent):
        return self.grow(self.start(latent).reshape(-1, 4, 3, 3, 3)).relu()


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv3d(1, 4, 3, stride=2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Dropout(0.2))
        self.real, self.energy = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, shower):
        seen = self.look(shower)
        return {"real": self.real(seen), "energy": self.energy(seen), "total": shower.sum((1, 2, 3, 4))[:, None]}


def step(net, critic, net_opt, critic_opt, scheduler) -> float:
    """One round of both, as the papers do it."""
    latent, truth = torch.randn(4, 8), torch.rand(4, 1, 6, 6, 6)
    told, made = critic(truth), critic(net(latent).detach())
    loss = nn.functional.softplus(-told["real"]).mean() + nn.functional.softplus(made["real"]).mean()
    critic_opt.zero_grad()
    (loss + (told["energy"] - told["total"]).square().mean()).backward()
    critic_opt.step()
    fooled = nn.functional.softplus(-critic(net(latent))["real"]).mean()
    net_opt.zero_grad()
    fooled.backward()
    net_opt.step()
    scheduler.step()
    return float(loss.detach() + fooled.detach())


def main(what: str, url: str) -> None:
    warnings.simplefilter("error")
    torch.manual_seed(0)
    net, critic = Generator(), Discriminator()
    net_opt = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.9))
    critic_opt = torch.optim.SGD(critic.parameters(), lr=1e-2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(net_opt, step_size=2, gamma=0.5)
    everything = (net, critic, net_opt, critic_opt, scheduler)
    with Catalog.open(url) as catalog:
        if what == "first":
            for _ in range(3):
                step(*everything)
            state = {
                "generator": net_opt.state_dict(), "discriminator": critic_opt.state_dict(),
                "scheduler": scheduler.state_dict(), "step": 3, "random": torch.get_rng_state(),
            }  # fmt: skip
            entries = {"generate": "generator", "score": "discriminator"}
            example = {"latent": torch.randn(2, 8), "shower": torch.rand(2, 1, 6, 6, 6)}
            torch.set_rng_state(state["random"])
            with catalog.prepare(
                "calo/gan", components={"generator": net, "discriminator": critic, "training": state},
                entry_points=entries, example=example,
            ) as draft:  # fmt: skip
                report = draft.verify()
                assert report.passed, report.rows()
                draft.save()
            torch.set_rng_state(state["random"])
        else:
            catalog.load("calo/gan", into={"generator": net, "discriminator": critic})
            state = catalog.load("calo/gan", "training", as_="torch")
            net_opt.load_state_dict(state["generator"])
            critic_opt.load_state_dict(state["discriminator"])
            scheduler.load_state_dict(state["scheduler"])
            assert state["step"] == 3
            torch.set_rng_state(state["random"])
    print(json.dumps([step(*everything) for _ in range(3)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
