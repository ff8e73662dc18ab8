#!/usr/bin/env python3
"""What a process of a framework holds without a card, in MiB: host_process_mib (pages of its own
after the import), host_libraries_mib (what it maps of programs and libraries) and host_steps_mib
(what the first training steps add to both) of catalog/frameworks/*.toml.

Usage: measure_process.py {torch,tensorflow,jax}   with a Python that has the package; Linux.
The model is a few kilobytes, so that what is read is the framework. PSS: /proc/self/smaps_rollup.
"""

import argparse
import os

STEPS = 50


def memory():
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        fields = [line.split() for line in lines]
    sizes = {field[0][:-1]: int(field[1]) for field in fields if field[-1] == "kB"}
    return sizes["Pss_Anon"] / 1024, sizes["Pss_File"] / 1024


def torch_steps():
    import torch

    yield torch.__version__
    layers = torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.ones(32, 32)).square().mean().backward()
        optimizer.step()


def tensorflow_steps():
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow

    yield tensorflow.__version__
    layer = tensorflow.keras.layers.Dense
    model = tensorflow.keras.Sequential([layer(64, activation="relu"), layer(8)])
    loss = tensorflow.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    samples = (tensorflow.zeros((256, 32)), tensorflow.zeros(256, tensorflow.int32))
    batches = tensorflow.data.Dataset.from_tensor_slices(samples).repeat().batch(32).prefetch(2)
    model.fit(batches, steps_per_epoch=STEPS, verbose=0)


def jax_steps():
    import flax.linen  # noqa: F401  what a JAX job imports besides
    import jax
    import jax.numpy as jnp
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401

    yield jax.__version__

    def loss(weights, samples):
        return jnp.mean((jnp.tanh(samples @ weights[0]) @ weights[1]) ** 2)

    @jax.jit
    def step(weights, samples):
        gradients = jax.grad(loss)(weights, samples)
        return [weight - 0.1 * gradient for weight, gradient in zip(weights, gradients)]

    weights = [jnp.ones((32, 64)), jnp.ones((64, 8))]
    for _ in range(STEPS):
        weights = step(weights, jnp.ones((32, 32)))
    jax.block_until_ready(weights)


FRAMEWORKS = {"torch": torch_steps, "tensorflow": tensorflow_steps, "jax": jax_steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=sorted(FRAMEWORKS))
    name = parser.parse_args().framework
    bare = memory()
    stages = FRAMEWORKS[name]()
    version = next(stages)
    imported = memory()
    for _ in stages:
        pass
    trained = memory()
    print(f"{name} {version}: bare interpreter {sum(bare):.0f}; host_process_mib "
          f"{imported[0]:.0f}; host_libraries_mib {imported[1]:.0f}; host_steps_mib "
          f"{sum(trained) - sum(imported):.0f}")


if __name__ == "__main__":
    main()
