/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
/*
 * A plugin that does what its argument's first element says: the operator of the fixture customop, as an enemy would write
 * it. HONEST computes x * 3 + k.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "include/pt2box_op.h"
#include "tests/plugins/hostile.h"

/* Where the slot of the lane is before the memory for results: ipc/lane.h, one slot of 64 KiB. */
#define SLOT_HEAD 24
#define HEAD 256
#define STRIDE ((SLOT_HEAD + 65536 + 127) / 128 * 128)
#define CONTROL ((HEAD + STRIDE + 4095) / 4096 * 4096)

static int honest(struct pt2box_op_call *c, const struct pt2box_op_tensor *x, struct pt2box_op_tensor *y)
{
	int64_t n = 1;

	for (int d = 0; d < x->ndim; d++)
		n *= x->sizes[d];
	for (int64_t i = 0; i < n; i++)
		((float *)y->data)[i] = ((const float *)x->data)[i] * 3 + (float)c->args[1].v.i;
	return c->set_result(c, 0, y);
}

/* Answers in the place of its host: the call is done, and the answer is 0xff. */
static void forge(struct pt2box_op_tensor *y)
{
	uint8_t *slot = (uint8_t *)y->data - CONTROL + HEAD;
	uint32_t seq = (uint32_t)(*(uint64_t *)(void *)slot >> 32);

	memset(slot + SLOT_HEAD, 0xff, 65536);
	*(uint32_t *)(void *)(slot + 20) = 1000;
	atomic_store((_Atomic uint32_t *)(void *)(slot + 8), seq);
	syscall(SYS_futex, slot + 8, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
	_exit(0);
}

/* More than any lane has. */
static int flood(struct pt2box_op_call *c)
{
	const int64_t sizes[2] = {1 << 15, 1 << 14};
	struct pt2box_op_tensor *y = c->new_tensor(c, 6, 2, sizes, NULL);

	return y ? c->set_result(c, 0, y) : 1;
}

/* Of another shape than the package was compiled for. */
static int other_shape(struct pt2box_op_call *c)
{
	const int64_t sizes[1] = {0};
	struct pt2box_op_tensor *y = c->new_tensor(c, 7, 1, sizes, NULL);

	return y ? c->set_result(c, 0, y) : 1;
}

static int opens_a_file(void)
{
	FILE *f = fopen("/etc/passwd", "r");

	if (!f)
		return 0;
	fclose(f);
	return 1;
}

static int triple(struct pt2box_op_call *c)
{
	const struct pt2box_op_tensor *x = c->args[0].v.tensor;
	struct pt2box_op_tensor *y = c->new_tensor(c, x->dtype, x->ndim, x->sizes, NULL);

	switch ((int)*(const float *)x->data) {
	case HOSTILE_CRASH:
		*(volatile int *)8 = 1;
		break;
	case HOSTILE_HANG:
		for (;;)
			;
	case HOSTILE_TOO_MUCH:
		return flood(c);
	case HOSTILE_NO_RESULT:
		return 0;
	case HOSTILE_FORGE:
		forge(y);
		break;
	case HOSTILE_SOCKET:
		return socket(AF_INET, SOCK_STREAM, 0) >= 0;
	case HOSTILE_FILE:
		return opens_a_file();
	case HOSTILE_EXIT:
		_exit(3);
	case HOSTILE_FAIL:
		return c->fail(c, "does not like %d", HOSTILE_FAIL);
	case HOSTILE_STORE_INPUT:
		*(volatile float *)x->data = 1;
		break;
	case HOSTILE_STRANGER:
		return c->set_result(c, 0, (struct pt2box_op_tensor *)(uintptr_t)x);
	case HOSTILE_OTHER_SHAPE:
		return other_shape(c);
	}
	return honest(c, x, y);
}

static const struct pt2box_op ops[] = {{"pt2box_test::triple", "(Tensor x, int k) -> Tensor", triple}};
static const struct pt2box_op_plugin plugin = {PT2BOX_OP_ABI, sizeof(struct pt2box_op), "hostile", ops, 1};

const struct pt2box_op_plugin *pt2box_op_plugin(void)
{
	return &plugin;
}
