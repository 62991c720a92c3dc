/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs, and what they share. A verb returns a status: it is the exit code. */
#ifndef PT2BOX_CMD_CMD_H
#define PT2BOX_CMD_CMD_H

#include <stdio.h>

#include "client/cmd/array.h"
#include "client/cmd/options.h"
#include "include/pt2box.h"

PB_CHECK pb_status cmd_run(const struct cmd_options *o, struct pt2box_error *err);
PB_CHECK pb_status cmd_inspect(const struct cmd_options *o, struct pt2box_error *err);
PB_CHECK pb_status cmd_bench(const struct cmd_options *o, struct pt2box_error *err);
/* Its exit status is not only a pb_status: see batch.c. */
PB_CHECK pb_status cmd_batch(const struct cmd_options *o, struct pt2box_error *err);
PB_CHECK pb_status cmd_doctor(const struct cmd_options *o, struct pt2box_error *err);
PB_CHECK pb_status cmd_ps(const struct cmd_options *o, struct pt2box_error *err);
PB_CHECK pb_status cmd_top(const struct cmd_options *o, struct pt2box_error *err);
PB_CHECK pb_status cmd_metrics(const struct cmd_options *o, struct pt2box_error *err);
/* Becomes pt2boxd; returns only if that fails. argv[0] is the verb. */
PB_CHECK pb_status cmd_serve(int argc, char **argv, struct pt2box_error *err);

/* ---- session.c ---- */
/* Connect, to --socket or to a private broker, and load. What is set so far is the caller's to close, also on failure. */
PB_CHECK pb_status cmd_load(const struct cmd_options *o, struct pt2box **ret_c, struct pt2box_model **ret_m,
			    struct pt2box_error *err);
/* Open a package for reading. */
PB_CHECK pb_status cmd_open_package(const char *path, int *ret_fd, struct pt2box_error *err);

/* ---- inputs.c ---- */
struct cmd_inputs {
	struct pb_array_file **file;
	size_t n_files;
	size_t n; /* arrays of all files */
};

/* Tensors of one model, and the memory of those that could not be read straight into its lane. */
struct cmd_tensors {
	struct pt2box_tensor **t;
	void **buffer;
	size_t n;
};

PB_CHECK pb_status cmd_inputs_open(const struct cmd_options *o, struct cmd_inputs *ret, struct pt2box_error *err);
void cmd_inputs_deinit(struct cmd_inputs *in);
PB_CHECK pb_status cmd_inputs_read(struct cmd_inputs *in, struct pt2box_model *m, struct cmd_tensors *ret,
				   struct pt2box_error *err);
void cmd_tensors_deinit(struct cmd_tensors *t);
/* Say in @err, a BAD_TENSOR, which arrays there were. */
void cmd_inputs_explain(const struct cmd_inputs *in, struct pt2box_error *err);

/* ---- outputs.c ---- */
/* @padded not 0: that many rows were run, and the first @rows of each output are wanted. UNSUPPORTED: an output has others. */
PB_CHECK pb_status cmd_outputs_write(int fd, enum pb_format format, struct pt2box_tensor *const *t, size_t n, int64_t padded,
				     int64_t rows, struct pt2box_error *err);

/* ---- show.c ---- */
/* "name  float32[4, 10]  0.1 0.2 ..." */
void cmd_show_tensor(FILE *f, const char *name, const struct pt2box_tensor_info *t);
/* "1.5 MiB"; -1: "-". */
const char *cmd_show_bytes(int64_t bytes, char buf[24]);
/* Text of a peer or package, for a terminal. */
void cmd_show_text(FILE *f, const char *text);

/* ---- progress.c ---- */
/* A line on stderr that says what is being waited for, and for how long; only on a terminal, only after a second. */
void cmd_progress_start(const char *what);
/* Removes the line. */
void cmd_progress_stop(void);

#endif
