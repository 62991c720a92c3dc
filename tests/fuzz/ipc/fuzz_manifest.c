/* SPDX-License-Identifier: Apache-2.0 */
/* A manifest as the broker reads it from an intake that a hostile package has taken over. */
#include <stdlib.h>
#include <string.h>

#include "ipc/manifest.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_manifest *m, *back;
	uint8_t *first, *second;
	size_t n, n2;

	if (pb_manifest_decode(data, size, &m, NULL))
		return 0;
	/* What was accepted can be passed on, and means the same then. */
	if (pb_manifest_encode(m, &first, &n, NULL) || pb_manifest_decode(first, n, &back, NULL) ||
	    pb_manifest_encode(back, &second, &n2, NULL) || n != n2 || memcmp(first, second, n) != 0)
		abort();
	free(first);
	free(second);
	pb_manifest_free(back);
	pb_manifest_free(m);
	return 0;
}
