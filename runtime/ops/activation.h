/* SPDX-License-Identifier: Apache-2.0 */
/* Activations that each instruction set has a kernel for (activation_kernel.inc). */
#ifndef PT2BOX_RUNTIME_OPS_ACTIVATION_H
#define PT2BOX_RUNTIME_OPS_ACTIVATION_H

enum pb_act {
	PB_ACT_NONE,
	PB_ACT_RELU,
	PB_ACT_SIGMOID,
	PB_ACT_TANH,
	PB_ACT_SILU,
	PB_ACT_HARDSWISH,
	PB_ACT_HARDSIGMOID,
	PB_ACT_LEAKY_RELU, /* a: slope below 0 */
	PB_ACT_HARDTANH,   /* a, b: bounds */
	PB_ACT_GELU,
	PB_ACT_GELU_TANH,
};

struct pb_activation {
	enum pb_act kind;
	float a, b;
};

#endif
