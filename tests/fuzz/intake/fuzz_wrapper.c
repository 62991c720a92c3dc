/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as generated C++. A signature that is claimed must make sense. */
#include <stdlib.h>

#include "broker/intake/cpu.h"
#include "broker/intake/wrapper.h"
#include "tests/fuzz/replay.h"

static void check(const struct pb_wrapper *w)
{
	for (uint32_t i = 0; w->has_signature && i < w->n_inputs; i++) {
		const struct pb_sig_input *in = &w->inputs[i];

		if (in->ndim < 0 || in->ndim > PT2BOX_MAX_DIMS || pt2box_dtype_size(in->dtype) == 0)
			abort();
		for (int32_t d = 0; d < in->ndim; d++)
			if (in->dims[d].lo < 0 || in->dims[d].lo > in->dims[d].hi || in->dims[d].stride < -1)
				abort();
	}
	for (uint32_t i = 0; i < w->n_constants; i++)
		if (!w->constants[i].name || !w->constants[i].fqn || w->constants[i].ndim > PT2BOX_MAX_DIMS)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_arena a = {NULL};
	struct pb_build b = {.openmp_threads = 0};
	struct pb_wrapper w;
	char needs[64];

	if (pb_wrapper_scan((const char *)data, size, &a, &w))
		check(&w);
	pb_wrapper_scan_build((const char *)data, size, &b);
	pb_cpu_needs(b.command, b.command, b.tiles, needs, sizeof(needs));
	pb_arena_deinit(&a);
	return 0;
}
