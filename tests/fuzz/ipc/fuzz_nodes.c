/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes as the broker and the worker read them from a manifest; and what joins them to a schema. */
#include <stdlib.h>
#include <string.h>

#include "ipc/node_call.h"
#include "ipc/op_schema.h"
#include "tests/fuzz/replay.h"

static void use(const struct pb_nodes *nodes)
{
	static struct pb_schema s;
	struct pb_node_arg bound[PB_SCHEMA_MAX_ARGS];

	if (pb_schema_parse("(Tensor x, Tensor?[] ys=None, int n=3, *, int[] shape=[1, 2], str s=\"a\", Scalar? f=None, "
			    "bool[] bl=[True]) -> Tensor", &s, NULL) == PT2BOX_OK)
		abort(); /* None for what is not optional */
	if (pb_schema_parse("(Tensor x, Tensor?[] ys, int n=3, *, int[] shape=[1, 2], str s=\"a\", Scalar? f=None, "
			    "bool[] bl=[True]) -> Tensor", &s, NULL))
		abort();
	for (uint32_t i = 0; i < nodes->n; i++) {
		struct pb_node_call c;
		int64_t *ints;

		(void)!pb_schema_bind(&s, &nodes->list[i], bound, NULL);
		if (pb_node_call_inputs(&nodes->list[i]) > nodes->list[i].n_tensors)
			abort();
		if (!pb_node_call_init(&c, &nodes->list[i]))
			continue;
		ints = calloc((size_t)nodes->list[i].n_ints + 1, sizeof(*ints));
		if (ints)
			pb_node_call_fill(&c, ints);
		free(ints);
		pb_node_call_deinit(&c);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_nodes *nodes, *back;
	uint8_t *first, *second;
	size_t n, n2;

	if (pb_nodes_decode(data, size, &nodes, NULL))
		return 0;
	/* What was accepted can be passed on, and means the same then. */
	if (pb_nodes_encode(nodes, &first, &n, NULL) || pb_nodes_decode(first, n, &back, NULL) ||
	    pb_nodes_encode(back, &second, &n2, NULL) || n != n2 || memcmp(first, second, n) != 0)
		abort();
	use(back);
	free(first);
	free(second);
	pb_nodes_free(back);
	pb_nodes_free(nodes);
	return 0;
}
