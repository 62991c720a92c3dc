/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box run: files -> tensors -> one confined run (or some) -> a file. */
#include <stdlib.h>
#include <string.h>

#include "client/cmd/cmd.h"
#include "client/cmd/outfile.h"

struct outputs {
	struct pt2box_tensor **t; /* NULL entries: None */
	size_t n;
};

static void outputs_drop(struct outputs *out)
{
	for (size_t i = 0; i < out->n; i++) {
		pt2box_tensor_free(out->t[i]);
		out->t[i] = NULL;
	}
}

static pb_status run_model(const struct cmd_options *o, struct pt2box_model *m, const struct cmd_tensors *in,
			   struct outputs *out, struct pt2box_error *err)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	uint64_t seed = (uint64_t)o->seed;
	pb_status st = PT2BOX_OK;

	opt.retries = o->retries;
	opt.seed = o->seed < 0 ? NULL : &seed;
	out->n = pt2box_model_n_outputs(m);
	out->t = calloc(out->n + 1, sizeof(*out->t));
	if (!out->t)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	cmd_progress_start("running");
	for (uint32_t i = 0; i < o->repeat && !st; i++, seed++) {
		outputs_drop(out);
		st = pt2box_run(m, in->t, in->n, &opt, out->t, err);
	}
	cmd_progress_stop();
	return st;
}

static void show_outputs(const struct outputs *out)
{
	char name[24];

	for (size_t i = 0; i < out->n; i++) {
		snprintf(name, sizeof(name), "out%zu", i);
		if (out->t[i])
			cmd_show_tensor(stdout, name, pt2box_tensor_get_info(out->t[i]));
		else
			printf("%-6s None\n", name);
	}
}

pb_status cmd_run(const struct cmd_options *o, struct pt2box_error *err)
{
	struct cmd_outfile file = {.fd = -1};
	struct cmd_inputs in = {0};
	struct cmd_tensors t = {0};
	struct outputs out = {0};
	struct pt2box *c = NULL;
	struct pt2box_model *m = NULL;
	pb_status st;

	if (o->output && pb_format_of(o->output) == PB_FORMAT_NONE)
		return pb_error_set(err, PT2BOX_USAGE, "%s: the name must end in .npz, .npy or .safetensors", o->output);
	/* What can fail for the user's own reasons comes before anything is started. */
	st = cmd_inputs_open(o, &in, err);
	if (!st && o->output)
		st = cmd_outfile_open(o->output, &file, err);
	if (!st)
		st = cmd_load(o, &c, &m, err);
	if (!st)
		st = cmd_inputs_read(&in, m, &t, err);
	if (!st)
		st = run_model(o, m, &t, &out, err);
	if (st == PT2BOX_BAD_TENSOR && m)
		cmd_inputs_explain(&in, err);
	if (!st && o->output)
		st = cmd_outputs_write(file.fd, pb_format_of(o->output), out.t, out.n, 0, 0, err);
	if (!st && o->output)
		st = cmd_outfile_commit(&file, err);
	else if (!st)
		show_outputs(&out);
	outputs_drop(&out);
	free(out.t);
	cmd_tensors_deinit(&t);
	cmd_inputs_deinit(&in);
	cmd_outfile_deinit(&file);
	pt2box_unload(m);
	pt2box_close(c);
	return st;
}
