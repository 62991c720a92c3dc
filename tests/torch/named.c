/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests/torch/compare_named.py: gives the runtime the nodes of a JSON text, as intake and worker would together.
 * A library beside the runtime, which it finds in the global scope.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/intake/nodes.h"
#include "worker/nodes.h"

#pragma GCC visibility push(default)
int named_set(const char *json);
const char *named_error(void);
#pragma GCC visibility pop

static struct pb_arena arena;
static struct pt2box_error error;

/* 0; or 1, and the reason in named_error(). */
int named_set(const char *json)
{
	static struct pb_nodes nodes;
	struct pb_backend b = {.set_nodes = NULL};
	struct pb_manifest m = {.nodes = &nodes};
	const char *lacking;
	bool lapack;
	void *sym = dlsym(RTLD_DEFAULT, "pb_rt_set_nodes");

	memcpy(&b.set_nodes, &sym, sizeof(sym));
	if (!b.set_nodes)
		return pb_error_set(&error, PT2BOX_UNSUPPORTED, "the runtime is not loaded") != PT2BOX_OK;
	if (pb_nodes_read(json, strlen(json), &arena, &nodes, &error) ||
	    pb_nodes_classify(&nodes, &arena, &lacking, &lapack, &error))
		return 1;
	if (lacking[0])
		return pb_error_set(&error, PT2BOX_UNSUPPORTED, "%s", lacking) != PT2BOX_OK;
	return pb_nodes_give(&b, &m, &error) != PT2BOX_OK;
}

const char *named_error(void)
{
	return error.text;
}
