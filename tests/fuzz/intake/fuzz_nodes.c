/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON of extern nodes, as it comes from a package. */
#include <stdlib.h>

#include "broker/intake/nodes.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_arena a = {NULL};
	struct pb_nodes nodes, *back;
	const char *lacking;
	uint8_t *packed;
	bool lapack;
	size_t n;

	if (pb_nodes_read((const char *)data, size, &a, &nodes, NULL) == PT2BOX_OK) {
		if (pb_nodes_classify(&nodes, &a, &lacking, &lapack, NULL))
			abort();
		/* What intake makes of it, the broker takes. */
		if (pb_nodes_encode(&nodes, &packed, &n, NULL) == PT2BOX_OK) {
			if (pb_nodes_decode(packed, n, &back, NULL))
				abort();
			pb_nodes_free(back);
			free(packed);
		}
	}
	pb_arena_deinit(&a);
	return 0;
}
