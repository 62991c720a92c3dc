/* SPDX-License-Identifier: Apache-2.0 */
/* See metadata.h. jansson bounds the depth (2048) and refuses text that is not UTF-8; size and kinds are bounded here. */
#include "broker/intake/metadata.h"

#include <jansson.h>
#include <string.h>

#define PAIRS_MAX 4096

static json_t *load_object(const char *text, size_t bytes, struct pt2box_error *err)
{
	json_error_t e;
	json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);

	if (!root)
		pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: line %d: %s", e.line, e.text);
	else if (!json_is_object(root))
		pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: not an object");
	if (json_is_object(root))
		return root;
	json_decref(root);
	return NULL;
}

static const char *lookup(const struct pb_metadata *m, const char *key)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (strcmp(m->pairs[i].key, key) == 0)
			return m->pairs[i].value;
	return "";
}

static pb_status copy_pairs(json_t *root, struct pb_arena *a, struct pb_metadata *ret, struct pt2box_error *err)
{
	const char *key;
	json_t *value;

	if (json_object_size(root) > PAIRS_MAX)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: more than %d entries", PAIRS_MAX);
	ret->pairs = pb_arena_take(a, json_object_size(root), sizeof(*ret->pairs));
	if (!ret->pairs)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for metadata");
	json_object_foreach(root, key, value) {
		struct pb_key_value *p = &ret->pairs[ret->n];

		if (!json_is_string(value))
			return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: the value of \"%.80s\" is not text", key);
		p->key = pb_arena_text(a, key, strlen(key));
		p->value = pb_arena_text(a, json_string_value(value), json_string_length(value));
		if (!p->key || !p->value)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for metadata");
		ret->n++;
	}
	return PT2BOX_OK;
}

pb_status pb_metadata_read(const char *text, size_t bytes, struct pb_arena *a, struct pb_metadata *ret,
			   struct pt2box_error *err)
{
	json_t *root;
	pb_status st;

	*ret = (struct pb_metadata){.device = "", .platform = "", .machine = "", .cpu_isa = ""};
	if (bytes > PB_METADATA_MAX_BYTES)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: longer than %u bytes", PB_METADATA_MAX_BYTES);
	root = load_object(text, bytes, err);
	if (!root)
		return PT2BOX_PKG_REJECTED;
	st = copy_pairs(root, a, ret, err);
	json_decref(root);
	if (st)
		return st;
	ret->device = lookup(ret, "AOTI_DEVICE_KEY");
	ret->platform = lookup(ret, "AOTI_PLATFORM");
	ret->machine = lookup(ret, "AOTI_MACHINE");
	ret->cpu_isa = lookup(ret, "AOTI_CPU_ISA");
	return PT2BOX_OK;
}

pb_status pb_metadata_check(const struct pb_metadata *m, struct pt2box_error *err)
{
	if (!m->device[0])
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.device: the package does not say its device");
	if (strcmp(m->device, "cpu") != 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "the package is compiled for \"%.40s\"; this version runs CPU packages: move the model "
				    "and its example inputs to the CPU before torch.export, then compile again", m->device);
	if (m->platform[0] && strcmp(m->platform, "linux") != 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the package is compiled for the platform \"%.40s\", not linux",
				    m->platform);
	if (m->machine[0] && strcmp(m->machine, "x86_64") != 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the package is compiled for the machine \"%.40s\", not x86_64",
				    m->machine);
	return PT2BOX_OK;
}
