/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which entries of a package are the model's. The rules are those of PyTorch's loader (model_package_loader.cpp, 2.13.0),
 * except that nothing is ever compiled: a model without a shared object is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/intake/package.h"

#define FOLDER "data/aotinductor/"

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && strcmp(s + n - k, end) == 0;
}

/* Length of the first part of a path with its slash, 0 if there is none. */
static size_t first_part(const char *s)
{
	const char *slash = strchr(s, '/');

	return slash ? (size_t)(slash - s) + 1 : 0;
}

/* The root is the part that the first two entries have in common. An archive that begins with data/ has none. */
static size_t root_length(const struct pb_package *p)
{
	size_t n = p->n_entries ? first_part(p->entries[0].name) : 0;

	if (n == 0 || strncmp(p->entries[0].name, "data/", n) == 0)
		return 0;
	if (p->n_entries > 1 && strncmp(p->entries[0].name, p->entries[1].name, n) != 0)
		return 0;
	return n;
}

static pb_status no_memory(struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for names");
}

static bool is_listed(const struct pb_package *p, const char *name, size_t n)
{
	/* Entries of one folder come together: the last is nearly always the one. */
	for (uint32_t i = p->n_models; i > 0; i--)
		if (strncmp(p->models[i - 1], name, n) == 0 && p->models[i - 1][n] == '\0')
			return true;
	return false;
}

static pb_status list_models(struct pb_package *p, struct pt2box_error *err)
{
	size_t root = root_length(p), n = root + strlen(FOLDER);

	p->prefix = calloc(1, n + 1);
	p->models = calloc(p->n_entries + 1u, sizeof(*p->models));
	if (!p->prefix || !p->models)
		return no_memory(err);
	snprintf(p->prefix, n + 1, "%.*s%s", (int)root, p->entries ? p->entries[0].name : "", FOLDER);
	for (uint32_t i = 0; i < p->n_entries; i++) {
		const char *name = p->entries[i].name;
		size_t len;

		if (strncmp(name, p->prefix, n) != 0)
			continue;
		len = first_part(name + n);
		if (len < 2 || is_listed(p, name + n, len - 1))
			continue;
		p->models[p->n_models] = strndup(name + n, len - 1);
		if (!p->models[p->n_models])
			return no_memory(err);
		p->n_models++;
	}
	return PT2BOX_OK;
}

static pb_status not_found(const struct pb_package *p, const char *name, struct pt2box_error *err)
{
	char list[240] = "", safe[200];

	for (uint32_t i = 0; i < p->n_models && strlen(list) + 4 < sizeof(list); i++) {
		size_t used = strlen(list);

		snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", p->models[i]);
	}
	if (p->n_models == 0)
		return pb_error_set(err, PT2BOX_PKG_REJECTED,
				    "no_so: the package has no compiled model (no %s folder); compile it with "
				    "torch._inductor.aoti_compile_and_package", FOLDER);
	pb_text_escape(safe, sizeof(safe), name, strlen(name));
	return pb_error_set(err, PT2BOX_NOT_FOUND, "no model \"%s\" in the package; it has: %s", safe, list);
}

/* The entry @stem@end directly in the folder. */
static const struct pb_entry *find(const struct pb_package *p, const char *folder, const char *stem, size_t stem_len,
				   const char *end)
{
	size_t n = strlen(folder);

	for (uint32_t i = 0; i < p->n_entries; i++) {
		const char *name = p->entries[i].name;

		if (strncmp(name, folder, n) == 0 && strncmp(name + n, stem, stem_len) == 0 &&
		    strcmp(name + n + stem_len, end) == 0)
			return &p->entries[i];
	}
	return NULL;
}

/* The first entry directly in the folder whose name ends so; NULL if there is none or, for @only, a second. */
static const struct pb_entry *find_ending(const struct pb_package *p, const char *folder, const char *end, bool only)
{
	const struct pb_entry *found = NULL;
	size_t n = strlen(folder);

	for (uint32_t i = 0; i < p->n_entries; i++) {
		const char *name = p->entries[i].name;

		if (strncmp(name, folder, n) != 0 || strchr(name + n, '/') || !ends_with(name + n, end))
			continue;
		if (found && only)
			return NULL;
		if (!found)
			found = &p->entries[i];
		if (!only)
			break;
	}
	return found;
}

static uint32_t count_ending(const struct pb_package *p, const char *folder, const char *end)
{
	size_t n = strlen(folder);
	uint32_t count = 0;

	for (uint32_t i = 0; i < p->n_entries; i++)
		count += strncmp(p->entries[i].name, folder, n) == 0 && !strchr(p->entries[i].name + n, '/') &&
			 ends_with(p->entries[i].name + n, end);
	return count;
}

static pb_status find_so(const struct pb_package *p, const char *folder, struct pb_model_files *f,
			 struct pt2box_error *err)
{
	if (count_ending(p, folder, ".wrapper.so") > 1)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.so: the model has more than one wrapper.so");
	f->so = find_ending(p, folder, ".wrapper.so", false);
	if (!f->so)
		f->so = find_ending(p, folder, ".so", false);
	if (f->so)
		return PT2BOX_OK;
	if (count_ending(p, folder, ".cpp"))
		return pb_error_set(err, PT2BOX_PKG_REJECTED,
				    "no_so: the model is C++ text without a shared object, and nothing is compiled "
				    "here; package it without aot_inductor.package_cpp_only");
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "no_so: the model has no shared object");
}

pb_status pb_package_choose(struct pb_package *p, const char *name, struct pb_model_files *ret,
			    struct pt2box_error *err)
{
	struct pb_model_files f = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};
	char folder[2 * PB_ZIP_NAME_MAX + 32];
	const char *stem;
	size_t n;
	pb_status st = list_models(p, err);

	if (st)
		return st;
	if (!is_listed(p, name, strlen(name)))
		return not_found(p, name, err);
	snprintf(folder, sizeof(folder), "%s%s/", p->prefix, name);
	st = find_so(p, folder, &f, err);
	if (st)
		return st;
	stem = f.so->name + strlen(folder); /* "H.wrapper.so"; before 2.7 "H.so" */
	n = strlen(stem) - strlen(".so");
	f.wrapper = find(p, folder, stem, n, ".cpp");
	if (!f.wrapper)
		f.wrapper = find_ending(p, folder, ".wrapper.cpp", true);
	f.kernel = find_ending(p, folder, ".kernel.cpp", true);
	f.metadata = find(p, folder, stem, n, "_metadata.json");
	if (!f.metadata)
		f.metadata = find_ending(p, folder, "_metadata.json", false);
	f.nodes = find(p, folder, stem, n, ".json");
	f.blob = find(p, folder, stem, n, "_weights.blob");
	if (!f.blob)
		f.blob = find_ending(p, folder, "_weights.blob", true);
	f.weights_config = find_ending(p, folder, "weights_config.json", false);
	*ret = f;
	return PT2BOX_OK;
}
