/* SPDX-License-Identifier: Apache-2.0 */
/* The call spec of a package: text of whoever made it, decoded in the client. The tree that comes out can be written. */
#include <stdlib.h>
#include <string.h>

#include "client/callspec.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *out;
	json_t *tree;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	tree = pb_callspec_tree(text);
	if (!tree)
		abort();
	out = json_dumps(tree, JSON_ENCODE_ANY);
	if (!out)
		abort();
	free(out);
	json_decref(tree);
	free(text);
	return 0;
}
