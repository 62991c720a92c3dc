/* SPDX-License-Identifier: Apache-2.0 */
/* Valid things of ipc/ for its tests and for the corpora of its fuzz targets. */
#ifndef TESTS_UNIT_IPC_SAMPLES_H
#define TESTS_UNIT_IPC_SAMPLES_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ipc/lane.h"
#include "ipc/manifest.h"
#include "ipc/messages.h"

/* ---- control messages ---- */

enum sample_kind { SAMPLE_MIN, SAMPLE_MAX, SAMPLE_SOME, SAMPLE_KINDS };

/* Every field of @row at its least, its greatest, or something in between. */
static inline void sample_message(const struct pb_msg_row *row, enum sample_kind kind, union pb_msg *m)
{
	static uint8_t bytes[65536];
	uint8_t *base = (uint8_t *)m;

	memset(m, 0, sizeof(*m));
	memset(bytes, 0xa5, sizeof(bytes));
	for (uint32_t i = 0; i < row->n_fields; i++) {
		const struct pb_field *f = &row->fields[i];
		const uint64_t limit = f->max < sizeof(bytes) ? f->max : sizeof(bytes);
		const uint64_t some = f->max < 7 + i ? f->max : 7 + i;
		const uint64_t u = kind == SAMPLE_MIN ? 0 : kind == SAMPLE_MAX ? f->max : some;
		const int64_t v = kind == SAMPLE_MIN ? -(int64_t)f->max : (int64_t)u;
		const struct pb_bytes bin = {bytes, (uint32_t)(u < limit ? u : limit)};

		switch (f->type) {
		case PB_FIELD_u64:
			memcpy(base + f->offset, &u, sizeof(u));
			break;
		case PB_FIELD_i64:
			memcpy(base + f->offset, &v, sizeof(v));
			break;
		case PB_FIELD_str:
			memset(base + f->offset, 'a' + (int)i, (size_t)u);
			break;
		case PB_FIELD_bin:
			memcpy(base + f->offset, &bin, sizeof(bin));
			break;
		}
	}
}

/* The state in which @row may be sent. */
static inline enum pb_state sample_state(const struct pb_msg_row *row)
{
	return row->state == PB_STATE_ANY ? PB_STATE_READY : row->state;
}

/* ---- lanes ---- */

static inline struct pb_lane_tensor sample_tensor(int32_t ndim, int64_t size, bool down)
{
	struct pb_lane_tensor t = {.down = down, .dtype = PT2BOX_FLOAT32, .ndim = ndim, .segment = 3, .offset = 64};
	int64_t stride = 1;

	for (int32_t i = ndim - 1; i >= 0; i--) {
		t.sizes[i] = size;
		t.strides[i] = stride;
		stride *= size;
	}
	return t;
}

struct sample_lane {
	struct pb_lane_tensor in[4], out[4];
	struct pb_lane_written written[2];
	struct pb_lane_request request;
	struct pb_lane_reply reply;
};

static inline void sample_lane(struct sample_lane *s)
{
	memset(s, 0, sizeof(*s));
	s->in[0] = sample_tensor(0, 1, false);
	s->in[1] = sample_tensor(2, 7, false);
	s->in[2] = sample_tensor(PT2BOX_MAX_DIMS, 2, true);
	s->in[3] = sample_tensor(3, 0, false);
	s->out[0] = sample_tensor(1, 1000, true);
	s->out[1].none = true;
	s->out[2] = sample_tensor(4, 9, true);
	s->out[3] = sample_tensor(1, 300, false); /* an output that is an input */
	s->written[0] = (struct pb_lane_written){1, sample_tensor(2, 7, true)};
	s->written[1] = (struct pb_lane_written){3, sample_tensor(1, 0, true)};
	s->request = (struct pb_lane_request){.window_segment = 2, .window_offset = 4096, .window_bytes = 1 << 20,
					      .fetch = 77, .n_inputs = 4, .inputs = s->in};
	s->reply = (struct pb_lane_reply){.status = PT2BOX_MODEL_ERROR, .signal = 11, .worker = 5,
					  .needed_bytes = 1234567, .run_ns = 98765, .text = "as the model says",
					  .n_outputs = 4, .outputs = s->out, .n_written = 2, .written = s->written};
}

/* ---- the manifest ---- */

/* ---- nodes ---- */

struct sample_nodes {
	struct pb_nodes nodes;
	struct pb_node list[2];
	struct pb_node_arg args[18], outs[4];
};

/* An argument and a result of every kind. */
static inline void sample_nodes(struct sample_nodes *s)
{
	static const int64_t ints[] = {4, -5, INT64_MIN, INT64_MAX, -33, -129, -32769};
	static const double floats[] = {0.5, -1e300};
	static const uint8_t bools[] = {1, 0, 1};
	static const char *const strings[] = {"a", "", "line\nbreak"};
	const struct pb_node_arg args[] = {
		{.name = "none", .kind = PT2BOX_OP_NONE},
		{.name = "x", .kind = PT2BOX_OP_TENSOR},
		{.name = "ys", .kind = PT2BOX_OP_TENSORS, .count = 3, .v.bools = bools},
		{.name = "n", .kind = PT2BOX_OP_INT, .v.i = -7},
		{.name = "shape", .kind = PT2BOX_OP_INTS, .count = 7, .v.ints = ints},
		{.name = "f", .kind = PT2BOX_OP_FLOAT, .v.f = 0.1},
		{.name = "fl", .kind = PT2BOX_OP_FLOATS, .count = 2, .v.floats = floats},
		{.name = "b", .kind = PT2BOX_OP_BOOL, .v.i = 1},
		{.name = "bl", .kind = PT2BOX_OP_BOOLS, .count = 3, .v.bools = bools},
		{.name = "s", .kind = PT2BOX_OP_STRING, .v.s = "reduced"},
		{.name = "sl", .kind = PT2BOX_OP_STRINGS, .count = 3, .v.strings = strings},
		{.name = "dt", .kind = PT2BOX_OP_DTYPE, .v.i = 7},
		{.name = "lay", .kind = PT2BOX_OP_LAYOUT, .v.i = 3},
		{.name = "mf", .kind = PT2BOX_OP_MEMORY_FORMAT, .v.i = 2},
		{.name = "dev", .kind = PT2BOX_OP_DEVICE, .v.i = 1, .device_index = 0},
		{.name = "cpu", .kind = PT2BOX_OP_DEVICE, .v.i = 0, .device_index = -1},
		{.name = "obj", .kind = PT2BOX_OP_OBJECT, .v.s = "custom_obj_0"},
		{.name = "none_left", .kind = PT2BOX_OP_INTS, .count = 0, .v.ints = ints},
	};
	const struct pb_node_arg outs[] = {
		{.name = "", .kind = PT2BOX_OP_TENSOR},
		{.name = "", .kind = PT2BOX_OP_TENSORS, .count = 3, .v.bools = bools},
		{.name = "", .kind = PT2BOX_OP_INT, .v.i = 3},
		{.name = "", .kind = PT2BOX_OP_NONE},
	};

	memset(s, 0, sizeof(*s));
	memcpy(s->args, args, sizeof(args));
	memcpy(s->outs, outs, sizeof(outs));
	s->list[0] = (struct pb_node){.target = "lab::big", .args = s->args, .n_args = 18, .outs = s->outs, .n_outs = 4,
				      .python = true};
	s->list[1] = (struct pb_node){.target = "aten::none.out", .args = s->args, .outs = s->outs, .native = true};
	s->nodes = (struct pb_nodes){s->list, 2};
}

struct sample_manifest {
	struct pb_manifest m;
	struct sample_nodes nodes;
	struct pb_sig_input inputs[3];
	struct pb_constant constants[3];
	struct pb_import imports[3];
	struct pb_key_value metadata[2];
	const char *names[2];
};

/* Something in every field. */
static inline void sample_manifest(struct sample_manifest *s)
{
	memset(s, 0, sizeof(*s));
	s->names[0] = "model";
	s->names[1] = "gr\xc3\xb6\xc3\x9f"
		      "er";
	s->metadata[0] = (struct pb_key_value){"AOTI_DEVICE_KEY", "cpu"};
	s->metadata[1] = (struct pb_key_value){"", ""};
	s->inputs[0] = (struct pb_sig_input){.name = "x", .dtype = PT2BOX_FLOAT32, .ndim = 2,
					     .dims = {{1, 64, -1}, {64, 64, 1}}};
	s->inputs[1] = (struct pb_sig_input){.name = "unknown", .dtype = -1, .ndim = -1};
	s->inputs[2] = (struct pb_sig_input){.name = "deep", .dtype = PT2BOX_INT64, .ndim = PT2BOX_MAX_DIMS};
	for (int i = 0; i < PT2BOX_MAX_DIMS; i++)
		s->inputs[2].dims[i] = (struct pb_sig_dim){0, INT64_MAX, INT64_MAX};
	s->constants[0] = (struct pb_constant){.name = "fc1_weight", .fqn = "fc1.weight", .dtype = PT2BOX_FLOAT32,
					       .ndim = 2, .sizes = {256, 64}, .strides = {64, 1}, .data_size = 65536,
					       .type = PB_CONST_PARAMETER};
	s->constants[1] = (struct pb_constant){.name = "folded", .fqn = "", .dtype = PT2BOX_BFLOAT16, .folded = true, .opaque = true,
					       .type = PB_CONST_FOLDED};
	s->constants[2] = (struct pb_constant){.name = "last", .fqn = "last", .dtype = 255, .ndim = 1,
					       .sizes = {INT64_MAX}, .strides = {INT64_MAX},
					       .storage_offset = INT64_MAX, .data_size = INT64_MAX,
					       .blob_offset = INT64_MAX, .type = PB_CONST_BUFFER};
	s->imports[0] = (struct pb_import){"aoti_torch_cpu_addmm_out", PB_SHIM_IS_NATIVE, ""};
	s->imports[1] = (struct pb_import){"aoti_torch_cpu_rare", PB_SHIM_IS_ABSENT, "aten.rare needs libtorch"};
	s->imports[2] = (struct pb_import){"Sleef_expf8_u10", PB_SHIM_IS_OTHER, ""};
	s->m = (struct pb_manifest){
		.model_name = "model", .model_names = s->names, .n_model_names = 2, .device = "cpu",
		.metadata = s->metadata, .n_metadata = 2, .in_spec = "[1, {}]", .out_spec = "[2]",
		.inputs = s->inputs, .n_inputs = 3, .n_outputs = 1, .has_signature = true,
		.constants = s->constants, .n_constants = 3, .const_source = PB_CONSTS_BLOB, .const_bytes = 65536,
		.mutates = true,
		.imports = s->imports, .n_imports = 3, .n_absent = 1, .n_proxied = 0, .so_bytes = 123456,
		.init_addr = 0x1000, .init_array_addr = 0x2000, .init_array_count = 3, .cpu_isa = "AVX2",
		.cpu_needs = "avx2 fma", .uses_openmp = true, .openmp_threads = 2, .minimal_arrayref = true,
		.needs_lapack = true, .nodes = &s->nodes.nodes,
	};
	sample_nodes(&s->nodes);
	memset(s->m.so_sha256, 0xaa, 32);
	memset(s->m.pkg_sha256, 0xbb, 32);
}

#endif
