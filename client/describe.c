/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manifest as JSON; its keys are documented at pt2box_inspect_fd() in the public header. Text in
 * it is the package author's, made harmless when the manifest was decoded.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/callspec.h"
#include "client/internal.h"

static const char *source_name(enum pb_const_source s)
{
	switch (s) {
	case PB_CONSTS_EMBEDDED_RO:
		return "embedded";
	case PB_CONSTS_EMBEDDED_RW:
		return "embedded, written by the model";
	case PB_CONSTS_MMAP_SELF:
		return "appended to the code";
	case PB_CONSTS_BLOB:
		return "weights blob";
	case PB_CONSTS_EXTERNAL:
		return "external";
	case PB_CONSTS_WEIGHTS_FILE:
		return "pickled file";
	case PB_CONSTS_NONE:
		return "none";
	}
	return "?";
}

static const char *const_type_name(enum pb_const_type t)
{
	static const char *const names[] = {"unknown", "parameter", "buffer", "tensor", "folded"};

	return names[t];
}

static const char *import_state_name(enum pb_shim_state s)
{
	static const char *const names[] = {"native", "proxied", "absent", "other"};

	return names[s];
}

static json_t *hex(const uint8_t *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	char text[65];

	for (size_t i = 0; i < n && i < 32; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	return json_stringn(text, 2 * n);
}

static json_t *integers(const int64_t *v, int32_t n)
{
	json_t *a = json_array();

	for (int32_t i = 0; i < n; i++)
		json_array_append_new(a, json_integer(v[i]));
	return a;
}

static json_t *dtype_or_null(int32_t dtype)
{
	return pt2box_dtype_size(dtype) ? json_string(pt2box_dtype_name(dtype)) : json_null();
}

static json_t *input_json(const struct pb_sig_input *in)
{
	json_t *o = json_object(), *dims = in->ndim < 0 ? json_null() : json_array();

	json_object_set_new(o, "name", json_string(in->name));
	json_object_set_new(o, "dtype", dtype_or_null(in->dtype));
	for (int32_t i = 0; i < in->ndim; i++) {
		const struct pb_sig_dim *d = &in->dims[i];
		json_t *j = json_object();

		json_object_set_new(j, "min", json_integer(d->lo));
		json_object_set_new(j, "max",
				    d->hi == INT64_MAX ? json_null() : json_integer(d->hi));
		json_object_set_new(j, "stride",
				    d->stride < 0 ? json_null() : json_integer(d->stride));
		json_array_append_new(dims, j);
	}
	json_object_set_new(o, "dims", dims);
	return o;
}

static json_t *inputs_json(const struct pb_manifest *m)
{
	json_t *a;

	if (!m->has_signature)
		return json_null();
	a = json_array();
	for (uint32_t i = 0; i < m->n_inputs; i++)
		json_array_append_new(a, input_json(&m->inputs[i]));
	return a;
}

static json_t *constant_json(const struct pb_constant *c)
{
	json_t *o = json_object();

	json_object_set_new(o, "name", json_string(c->name));
	json_object_set_new(o, "fqn", json_string(c->fqn));
	json_object_set_new(o, "dtype", dtype_or_null(c->dtype));
	json_object_set_new(o, "shape", integers(c->sizes, c->ndim));
	json_object_set_new(o, "strides", integers(c->strides, c->ndim));
	json_object_set_new(o, "storage_offset", json_integer(c->storage_offset));
	json_object_set_new(o, "bytes", json_integer((json_int_t)c->data_size));
	json_object_set_new(o, "type", json_string(const_type_name(c->type)));
	json_object_set_new(o, "folded", json_boolean(c->folded));
	return o;
}

static json_t *constants_json(const struct pb_manifest *m)
{
	json_t *o = json_object(), *list = json_array();

	for (uint32_t i = 0; i < m->n_constants; i++)
		json_array_append_new(list, constant_json(&m->constants[i]));
	json_object_set_new(o, "source", json_string(source_name(m->const_source)));
	json_object_set_new(o, "bytes", json_integer((json_int_t)m->const_bytes));
	json_object_set_new(o, "count", json_integer(m->n_constants));
	json_object_set_new(o, "list", list);
	return o;
}

static json_t *imports_json(const struct pb_manifest *m, json_t **ret_counts)
{
	json_t *list = json_array(), *counts = json_object();
	uint32_t n[4] = {0};

	for (uint32_t i = 0; i < m->n_imports; i++) {
		const struct pb_import *im = &m->imports[i];
		json_t *o = json_object();

		json_object_set_new(o, "name", json_string(im->name));
		json_object_set_new(o, "state", json_string(import_state_name(im->state)));
		json_object_set_new(o, "note", json_string(im->note));
		json_array_append_new(list, o);
		n[im->state]++;
	}
	for (int s = 0; s < 4; s++)
		json_object_set_new(counts, import_state_name((enum pb_shim_state)s),
				    json_integer(n[s]));
	*ret_counts = counts;
	return list;
}

/* "a b c" as a list. */
static json_t *words(const char *text)
{
	json_t *a = json_array();

	while (*text) {
		size_t n = strcspn(text, " ");

		if (n)
			json_array_append_new(a, json_stringn(text, n));
		text += n + (text[n] == ' ');
	}
	return a;
}

static json_t *cpu_json(const struct pb_manifest *m)
{
	json_t *o = json_object();

	json_object_set_new(o, "isa", json_string(m->cpu_isa));
	json_object_set_new(o, "needs", words(m->cpu_needs));
	json_object_set_new(o, "openmp", json_boolean(m->uses_openmp));
	json_object_set_new(o, "openmp_threads",
			    m->openmp_threads ? json_integer(m->openmp_threads) : json_null());
	return o;
}

static json_t *code_json(const struct pb_manifest *m)
{
	json_t *o = json_object();

	json_object_set_new(o, "bytes", json_integer((json_int_t)m->so_bytes));
	json_object_set_new(o, "sha256", hex(m->so_sha256, 32));
	json_object_set_new(o, "constructors",
			    json_integer((json_int_t)m->init_array_count + (m->init_addr != 0)));
	json_object_set_new(o, "minimal_arrayref", json_boolean(m->minimal_arrayref));
	return o;
}

static json_t *spec_json(const char *text)
{
	json_t *o = json_object();

	json_object_set_new(o, "text", *text ? json_string(text) : json_null());
	json_object_set_new(o, "tree", pb_callspec_tree(text));
	return o;
}

static json_t *names_json(const struct pb_manifest *m)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < m->n_model_names; i++)
		json_array_append_new(a, json_string(m->model_names[i]));
	return a;
}

static json_t *metadata_json(const struct pb_manifest *m)
{
	json_t *o = json_object();

	for (uint32_t i = 0; i < m->n_metadata; i++)
		json_object_set_new(o, m->metadata[i].key, json_string(m->metadata[i].value));
	return o;
}

static void set_names(json_t *o, const struct pb_manifest *m)
{
	json_object_set_new(o, "model", json_string(m->model_name));
	json_object_set_new(o, "models", names_json(m));
	json_object_set_new(o, "device", json_string(m->device));
}

static pb_status dump(json_t *o_take, size_t flags, char **ret_json, struct pt2box_error *err)
{
	char *text = json_dumps(o_take, flags | JSON_ENSURE_ASCII);

	json_decref(o_take);
	if (!text)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a description");
	*ret_json = text;
	return PT2BOX_OK;
}

pb_status pb_describe_brief(const struct pb_manifest *m, char **ret_json, struct pt2box_error *err)
{
	json_t *o = json_object();

	set_names(o, m);
	json_object_set_new(o, "metadata", metadata_json(m));
	return dump(o, JSON_COMPACT, ret_json, err);
}

static void set_state(json_t *o, const struct pb_manifest *m, const struct pb_msg_loaded *loaded)
{
	bool native = m->n_absent + m->n_proxied == 0;

	json_object_set_new(o, "state", json_string(loaded ? "loaded" : "inspected"));
	json_object_set_new(o, "backend", loaded && loaded->backend[0] ? json_string(loaded->backend) :
					  native		      ? json_string("native") :
									json_null());
	json_object_set_new(o, "n_inputs",
			    json_integer((json_int_t)(loaded ? loaded->n_inputs : m->n_inputs)));
	json_object_set_new(o, "n_outputs",
			    json_integer((json_int_t)(loaded ? loaded->n_outputs : m->n_outputs)));
	json_object_set_new(o, "stateful",
			    json_boolean(loaded ? loaded->stateful
						: m->mutates || m->const_source == PB_CONSTS_EMBEDDED_RW));
	if (!loaded)
		return;
	json_object_set_new(o, "run_deadline_ms", json_integer(loaded->run_deadline_ms));
	json_object_set_new(o, "start_us", json_integer((json_int_t)loaded->start_us));
}

/* The calls of operators by name, in the order of their numbers. */
static json_t *nodes_json(const struct pb_manifest *m)
{
	json_t *list = json_array();

	for (uint32_t i = 0; m->nodes && i < m->nodes->n; i++) {
		const struct pb_node *n = &m->nodes->list[i];
		json_t *o = json_object(), *args = json_array(), *results = json_array();

		for (uint32_t k = 0; k < n->n_args; k++) {
			json_t *a = json_object();

			json_object_set_new(a, "name", json_string(n->args[k].name));
			json_object_set_new(a, "kind", json_string(pb_node_kind_name(n->args[k].kind)));
			json_array_append_new(args, a);
		}
		for (uint32_t k = 0; k < n->n_outs; k++)
			json_array_append_new(results, json_string(pb_node_kind_name(n->outs[k].kind)));
		json_object_set_new(o, "operator", json_string(n->target));
		json_object_set_new(o, "state", json_string(n->native ? "native" : "absent"));
		json_object_set_new(o, "python", json_boolean(n->python));
		json_object_set_new(o, "arguments", args);
		json_object_set_new(o, "results", results);
		json_array_append_new(list, o);
	}
	return list;
}

pb_status pb_describe(const struct pb_manifest *m, const struct pb_msg_loaded *loaded,
		      char **ret_json, struct pt2box_error *err)
{
	json_t *o = json_object(), *counts, *spec = json_object(),
	       *imports = imports_json(m, &counts);

	set_names(o, m);
	set_state(o, m, loaded);
	json_object_set_new(o, "inputs", inputs_json(m));
	json_object_set_new(spec, "in", spec_json(m->in_spec));
	json_object_set_new(spec, "out", spec_json(m->out_spec));
	json_object_set_new(o, "call_spec", spec);
	json_object_set_new(o, "metadata", metadata_json(m));
	json_object_set_new(o, "constants", constants_json(m));
	json_object_set_new(o, "cpu", cpu_json(m));
	json_object_set_new(o, "code", code_json(m));
	json_object_set_new(o, "package_sha256", hex(m->pkg_sha256, 32));
	json_object_set_new(o, "import_counts", counts);
	json_object_set_new(o, "imports", imports);
	json_object_set_new(o, "extern_nodes", nodes_json(m));
	return dump(o, JSON_INDENT(1), ret_json, err);
}
