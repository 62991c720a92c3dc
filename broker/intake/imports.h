/* SPDX-License-Identifier: Apache-2.0 */
/* What a model.so wants from outside, and what the native runtime does about it: the rows of runtime/shims.def. */
#ifndef PT2BOX_BROKER_INTAKE_IMPORTS_H
#define PT2BOX_BROKER_INTAKE_IMPORTS_H

#include "broker/intake/arena.h"
#include "ipc/manifest.h"

/*
 * From undefined symbols to m->imports, n_absent, n_proxied. Symbols of C and C++ libraries are left out; those of C++
 * libtorch are absent. @lacking: operators called through the proxy executor that are not native, "" if all are; m->nodes
 * has them all. Sets m->needs_lapack where a native function needs it. LIMIT; NO_MEMORY.
 */
PB_CHECK pb_status pb_imports_classify(const char *const *symbols, uint32_t n, const char *lacking, struct pb_arena *a,
				       struct pb_manifest *m, struct pt2box_error *err);

#endif
