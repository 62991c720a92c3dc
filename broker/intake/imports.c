/* SPDX-License-Identifier: Apache-2.0 */
/* See imports.h. */
#include "broker/intake/imports.h"

#include <stdio.h>
#include <string.h>

#define PROXY_CALL "aoti_torch_proxy_executor_call_function"
#define WHO_HAS_OPERATORS "a plugin with them (--ops), or backend torch"
#define NEEDS_LAPACK "LAPACK" /* note of a native function in runtime/shims.def */

struct shim {
	const char *name;
	enum pb_shim_state state;
	const char *op, *note;
};

static const struct shim shims[] = {
#define SHIM(name, state, op, note) {#name, PB_SHIM_IS_##state, op, note},
#if __has_include("runtime/shims.def")
#include "runtime/shims.def"
#endif
#undef SHIM
	{NULL, PB_SHIM_IS_OTHER, NULL, NULL},
};

static const struct shim *find_shim(const char *name)
{
	for (const struct shim *s = shims; s->name; s++)
		if (strcmp(s->name, name) == 0)
			return s;
	return NULL;
}

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* C++ of libtorch: only templates for big matrix products and Triton's CPU kernels use it. */
static bool is_torch_cxx(const char *name)
{
	static const char *const prefixes[] = {"_ZN2at", "_ZNK2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch", "_ZNK5torch",
					       "_ZTVN3c10", "_ZTIN3c10", "_ZTVN2at", "_ZTIN2at"};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (starts_with(name, prefixes[i]))
			return true;
	return false;
}

static bool matters(const char *name)
{
	return starts_with(name, "aoti_") || starts_with(name, "Sleef_") || is_torch_cxx(name);
}

/* The proxy executor's one function stands for every operator that is called by name. */
static void describe_proxy(const struct shim *s, const char *lacking, const struct pb_nodes *nodes, struct pb_import *im,
			   char *note, size_t cap)
{
	im->state = s->state;
	if (s->state != PB_SHIM_IS_NATIVE || (nodes->n && !lacking[0]))
		return;
	im->state = PB_SHIM_IS_ABSENT;
	if (nodes->n)
		snprintf(note, cap, "operators without a C function: %s; %s", lacking, WHO_HAS_OPERATORS);
	else
		snprintf(note, cap, "the package does not say which operators it calls by name");
}

static void describe(const struct shim *s, const char *name, const char *lacking, const struct pb_nodes *nodes,
		     struct pb_import *im, char *note, size_t cap)
{
	note[0] = '\0';
	if (starts_with(name, "Sleef_")) {
		im->state = PB_SHIM_IS_OTHER;
	} else if (!s) {
		im->state = PB_SHIM_IS_ABSENT;
		snprintf(note, cap, "%s", is_torch_cxx(name) ? "C++ of libtorch, which only the torch backend has" :
							       "not known to this version's native runtime");
	} else if (strcmp(name, PROXY_CALL) == 0) {
		describe_proxy(s, lacking, nodes, im, note, cap);
	} else {
		im->state = s->state;
		if (s->state != PB_SHIM_IS_NATIVE)
			snprintf(note, cap, "%s%s%s", s->op, s->op[0] && s->note[0] ? "; " : "", s->note);
	}
}

pb_status pb_imports_classify(const char *const *symbols, uint32_t n, const char *lacking, struct pb_arena *a,
			      struct pb_manifest *m, struct pt2box_error *err)
{
	static const struct pb_nodes no_nodes = {NULL, 0};
	const struct pb_nodes *nodes = m->nodes ? m->nodes : &no_nodes;
	char note[480];
	uint32_t k = 0;

	for (uint32_t i = 0; i < n; i++)
		k += matters(symbols[i]);
	if (k > PB_MANIFEST_MAX_IMPORTS)
		return pb_error_set(err, PT2BOX_LIMIT, "the model imports more than %d functions",
				    PB_MANIFEST_MAX_IMPORTS);
	m->imports = pb_arena_take(a, k, sizeof(*m->imports));
	if (!m->imports)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for imports");
	for (uint32_t i = 0; i < n; i++) {
		struct pb_import *im = &m->imports[m->n_imports];
		const struct shim *s;

		if (!matters(symbols[i]))
			continue;
		s = find_shim(symbols[i]);
		describe(s, symbols[i], lacking, nodes, im, note, sizeof(note));
		im->name = pb_arena_text(a, symbols[i], strlen(symbols[i]));
		im->note = pb_arena_text(a, note, strlen(note));
		if (!im->name || !im->note)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for imports");
		m->n_imports++;
		m->needs_lapack |= s && im->state == PB_SHIM_IS_NATIVE && strcmp(s->note, NEEDS_LAPACK) == 0;
		m->n_absent += im->state == PB_SHIM_IS_ABSENT;
		m->n_proxied += im->state == PB_SHIM_IS_PROXIED;
	}
	return PT2BOX_OK;
}
