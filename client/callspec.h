/* SPDX-License-Identifier: Apache-2.0 */
/* PyTorch's serialized pytrees, which say how a package's inputs and outputs are nested. */
#ifndef PT2BOX_CLIENT_CALLSPEC_H
#define PT2BOX_CLIENT_CALLSPEC_H

#include <jansson.h>

/*
 * The tree of a TreeSpec in JSON: a leaf is its index among the flat inputs or outputs; {"tuple":
 * [...]}, {"list": [...]},
 * {"dict": [[key, node]...]}; any other container {"node": type, "context": text, "children":
 * [...]}. null if the text is not such a tree. Never fails otherwise.
 */
json_t *pb_callspec_tree(const char *text);

#endif
