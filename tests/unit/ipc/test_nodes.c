/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=calloc */
/* Nodes: there and back, hostile bytes, slots, the arguments of a call, no memory. */
#include <stdlib.h>
#include <string.h>

#include "ipc/node_call.h"
#include "tests/lib/check.h"
#include "tests/unit/ipc/samples.h"

static struct sample_nodes sample;

static uint8_t *encode(const struct pb_nodes *nodes, size_t *ret_n)
{
	struct pt2box_error err;
	uint8_t *data;

	if (pb_nodes_encode(nodes, &data, ret_n, &err))
		fail_msg("%s", err.text);
	return data;
}

static void assert_same_arg(const struct pb_node_arg *a, const struct pb_node_arg *b)
{
	assert_string_equal(a->name, b->name);
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->count, b->count);
	switch (a->kind) {
	case PT2BOX_OP_INTS:
		assert_memory_equal(a->v.ints, b->v.ints, a->count * sizeof(int64_t));
		break;
	case PT2BOX_OP_FLOATS:
		assert_memory_equal(a->v.floats, b->v.floats, a->count * sizeof(double));
		break;
	case PT2BOX_OP_TENSORS:
	case PT2BOX_OP_BOOLS:
		assert_memory_equal(a->v.bools, b->v.bools, a->count);
		break;
	case PT2BOX_OP_STRINGS:
		for (uint32_t i = 0; i < a->count; i++)
			assert_string_equal(a->v.strings[i], b->v.strings[i]);
		break;
	case PT2BOX_OP_STRING:
	case PT2BOX_OP_OBJECT:
		assert_string_equal(a->v.s, b->v.s);
		break;
	case PT2BOX_OP_NONE:
	case PT2BOX_OP_TENSOR:
		break;
	case PT2BOX_OP_DEVICE:
		assert_int_equal(a->device_index, b->device_index);
		/* fallthrough */
	default:
		assert_int_equal(a->v.i, b->v.i);
	}
}

static void test_there_and_back(void **state)
{
	struct pb_nodes *back;
	size_t n;
	uint8_t *data;

	(void)state;
	sample_nodes(&sample);
	data = encode(&sample.nodes, &n);
	assert_int_equal(PT2BOX_OK, pb_nodes_decode(data, n, &back, NULL));
	assert_int_equal(2, back->n);
	for (uint32_t i = 0; i < 2; i++) {
		const struct pb_node *a = &sample.list[i], *b = &back->list[i];

		assert_string_equal(a->target, b->target);
		assert_int_equal(a->python, b->python);
		assert_int_equal(a->native, b->native);
		assert_int_equal(a->n_args, b->n_args);
		assert_int_equal(a->n_outs, b->n_outs);
		for (uint32_t k = 0; k < a->n_args; k++)
			assert_same_arg(&a->args[k], &b->args[k]);
		for (uint32_t k = 0; k < a->n_outs; k++)
			assert_same_arg(&a->outs[k], &b->outs[k]);
	}
	assert_null(pb_nodes_free(back));
	free(data);
	assert_int_equal(PT2BOX_OK, pb_nodes_decode(NULL, 0, &back, NULL));
	assert_int_equal(0, back->n);
	pb_nodes_free(back);
	assert_null(pb_nodes_free(NULL));
}

/* Every argument takes its slots in order, then the results. */
static void test_layout(void **state)
{
	const struct pb_node *n = &sample.list[0];

	(void)state;
	sample_nodes(&sample);
	assert_int_equal(PT2BOX_OK, pb_node_layout(&sample.list[0], NULL));
	assert_int_equal(0, n->args[1].tensor_at);
	assert_int_equal(1, n->args[2].tensor_at); /* two of three are there */
	assert_int_equal(0, n->args[3].int_at);
	assert_int_equal(1, n->args[4].int_at);
	assert_int_equal(8, n->args[17].int_at);
	assert_int_equal(PB_SLOT_NONE, n->args[5].int_at);
	assert_int_equal(3, n->outs[0].tensor_at);
	assert_int_equal(4, n->outs[1].tensor_at);
	assert_int_equal(8, n->outs[2].int_at);
	assert_int_equal(9, n->n_ints);
	assert_int_equal(6, n->n_tensors);
	assert_int_equal(3, pb_node_call_inputs(n));
	sample.args[4].count = PB_NODE_MAX_ITEMS + 1;
	assert_int_equal(PT2BOX_LIMIT, pb_node_layout(&sample.list[0], NULL));
	sample.args[4].count = PB_NODE_MAX_ITEMS; /* with the others, too many */
	assert_int_equal(PT2BOX_LIMIT, pb_node_layout(&sample.list[0], NULL));
}

static void test_call(void **state)
{
	const int64_t ints[9] = {10, 11, 12, 13, 14, 15, 16, 17, 18};
	struct pb_node_call c;

	(void)state;
	sample_nodes(&sample);
	assert_int_equal(PT2BOX_OK, pb_node_layout(&sample.list[0], NULL));
	assert_true(pb_node_call_init(&c, &sample.list[0]));
	pb_node_call_fill(&c, ints);
	assert_int_equal(PT2BOX_OP_NONE, c.values[0].kind);
	assert_ptr_equal(&c.tensors[0], c.values[1].v.tensor);
	assert_int_equal(3, c.values[2].count);
	assert_ptr_equal(&c.tensors[1], c.values[2].v.tensors[0]);
	assert_null(c.values[2].v.tensors[1]);
	assert_ptr_equal(&c.tensors[2], c.values[2].v.tensors[2]);
	assert_int_equal(10, c.values[3].v.i); /* not what it was when the package was compiled */
	assert_ptr_equal(ints + 1, c.values[4].v.ints);
	assert_true(c.values[5].v.f == 0.1);
	assert_int_equal(1, c.values[7].v.i);
	assert_string_equal("reduced", c.values[9].v.s);
	assert_int_equal(1, c.values[14].v.device.type);
	assert_int_equal(-1, c.values[15].v.device.index);
	pb_node_call_deinit(&c);
}

/* Nothing that is decoded from damaged bytes reaches outside; what is accepted can be encoded again. */
static void test_damaged(void **state)
{
	struct pb_nodes *back;
	size_t n, n2;
	uint8_t *data, *again;

	(void)state;
	sample_nodes(&sample);
	data = encode(&sample.nodes, &n);
	for (size_t i = 0; i < n * 8; i++) {
		data[i / 8] ^= (uint8_t)(1 << i % 8);
		if (pb_nodes_decode(data, n, &back, NULL) == PT2BOX_OK) {
			again = encode(back, &n2);
			free(again);
			pb_nodes_free(back);
		}
		data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t i = 1; i < n; i++) {
		uint8_t *cut = malloc(i);

		memcpy(cut, data, i);
		assert_int_equal(PT2BOX_PKG_REJECTED, pb_nodes_decode(cut, i, &back, NULL));
		free(cut);
	}
	free(data);
}

static void refused(struct pb_nodes *nodes)
{
	struct pb_nodes *back;
	size_t n;
	uint8_t *data = encode(nodes, &n);

	assert_int_equal(PT2BOX_PKG_REJECTED, pb_nodes_decode(data, n, &back, NULL));
	free(data);
	sample_nodes(&sample);
}

static void test_limits(void **state)
{
	static const uint8_t lie[] = {0xdd, 0, 0, 0xff, 0xff, 0x93};
	struct pb_nodes *back;

	(void)state;
	sample_nodes(&sample);
	sample.args[7].v.i = 2; /* a bool */
	refused(&sample.nodes);
	sample.args[11].v.i = 256;
	refused(&sample.nodes);
	sample.args[14].device_index = 128;
	refused(&sample.nodes);
	sample.args[0].kind = (enum pt2box_op_kind)16;
	refused(&sample.nodes);
	sample.outs[3] = sample.args[5]; /* a result that is a float */
	refused(&sample.nodes);
	sample.list[0].target = "";
	refused(&sample.nodes);
	assert_int_equal(PT2BOX_PKG_REJECTED, pb_nodes_decode(lie, sizeof(lie), &back, NULL));
}

static void test_too_long(void **state)
{
	char *text = calloc(1, PB_NODES_MAX_ENCODED + 1);
	uint8_t *data;
	size_t n;

	(void)state;
	memset(text, 'x', PB_NODES_MAX_ENCODED);
	sample_nodes(&sample);
	sample.args[9].v.s = text;
	assert_int_equal(PT2BOX_LIMIT, pb_nodes_encode(&sample.nodes, &data, &n, NULL));
	free(text);
}

static void test_no_memory(void **state)
{
	size_t n;
	uint8_t *data;

	(void)state;
	sample_nodes(&sample);
	data = encode(&sample.nodes, &n);
	for (long i = 0; check_fail_at(i); i++) {
		struct pb_nodes *back = NULL;
		struct pb_node_call c;
		pb_status st = pb_nodes_decode(data, n, &back, NULL);

		if (st == PT2BOX_OK && pb_node_call_init(&c, &back->list[0]))
			pb_node_call_deinit(&c);
		else
			assert_true(check_failed());
		if (st == PT2BOX_OK)
			pb_nodes_free(back);
		else
			assert_int_equal(PT2BOX_NO_MEMORY, st);
	}
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_there_and_back), CHECK_TEST(test_layout),   CHECK_TEST(test_call),
		CHECK_TEST(test_damaged),	 CHECK_TEST(test_limits),   CHECK_TEST(test_too_long),
		CHECK_TEST(test_no_memory),
	};

	return cmocka_run_group_tests_name("nodes", tests, NULL, NULL);
}
