"""Plan with a world model of your own: three methods are all that the planners ask for.

    python examples/plan_with_your_own_model.py

Here the "model" is a point that moves by its action, and its latent is the point itself.
"""

import torch

from tubelet.core.latent import Latent
from tubelet.planning import CEM, CEMConfig, LatentCost, MPCAgent, MPCConfig


class Point:
    action_dim = 2

    def encode(self, obs):  # pixels [B, T, H, W, 3] in real life; here a position [B, 2]
        return Latent(torch.as_tensor(obs["position"])[:, None, None])  # tokens [B, T=1, N=1, D=2]

    def encode_goal(self, obs):
        return Latent(torch.as_tensor(obs["position"])[:, None])  # tokens [B, N=1, D=2]

    def rollout(self, context, actions):  # actions [B, S, H, A]
        start = context.tokens[:, -1, 0][:, None, None]
        return Latent((start + 0.1 * actions.cumsum(dim=2))[..., None, :])  # [B, S, H, N, D]


def main() -> float:
    cem = CEM(CEMConfig(horizon=5, samples=64, iterations=5, elites=10), 2, LatentCost(steps="sum"))
    agent = MPCAgent(Point(), cem, MPCConfig())
    agent.reset({"position": torch.tensor([[0.5, -0.3]])})
    position = torch.zeros(1, 2)
    for _ in range(15):
        position = position + 0.1 * torch.from_numpy(agent.act({"position": position})[:, 0])
    distance = (position - torch.tensor([[0.5, -0.3]])).norm().item()
    print(f"distance to the goal after 15 steps: {distance:.3f}")
    return distance


if __name__ == "__main__":
    main()
