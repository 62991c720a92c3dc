/* SPDX-License-Identifier: Apache-2.0 */
/* One item: read, run, write. What is the item's own fault goes to quarantine, anything else stops the batch. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/batch.h"

void batch_stop(struct batch *b, const struct pt2box_error *why)
{
	pthread_mutex_lock(&b->lock);
	if (!b->fatal.status)
		b->fatal = *why;
	pthread_mutex_unlock(&b->lock);
	atomic_store(&b->stop, true);
}

/* The input, or what the model does with it; not this machine, the package or the user. */
static bool is_its_own_fault(pb_status st)
{
	switch (st) {
	case PT2BOX_BAD_TENSOR:
	case PT2BOX_LIMIT:
	case PT2BOX_MODEL_KILLED:
	case PT2BOX_MODEL_CRASHED:
	case PT2BOX_MODEL_EXITED:
	case PT2BOX_MODEL_TIMEOUT:
	case PT2BOX_MODEL_OOM:
	case PT2BOX_MODEL_PROTOCOL:
	case PT2BOX_MODEL_ERROR:
	case PT2BOX_OP_DENIED:
	case PT2BOX_OP_TIMEOUT:
	case PT2BOX_OP_CRASHED:
		return true;
	default:
		return false;
	}
}

static pb_status read_file(const struct batch_thread *t, struct cmd_tensors *in, struct pt2box_error *err)
{
	struct pb_array_file *f = NULL;
	struct cmd_inputs files = {.file = &f, .n_files = 1};
	pb_status st = pb_array_file_open(t->item.path, &f, err);

	/* Neither is a failure of the batch: somebody else's file. */
	if (st == PT2BOX_IO || st == PT2BOX_USAGE)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s", err->text);
	if (st)
		return st;
	files.n = pb_array_file_count(f);
	st = cmd_inputs_read(&files, t->b->m, in, err);
	if (st == PT2BOX_IO)
		st = pb_error_set(err, PT2BOX_BAD_TENSOR, "%s", err->text);
	pb_array_file_free(f);
	return st;
}

static pb_status read_item(const struct batch_thread *t, struct cmd_tensors *in, struct pt2box_error *err)
{
	struct batch *b = t->b;
	pb_status st;

	if (!b->batch_size)
		return read_file(t, in, err);
	pthread_mutex_lock(&b->lock);
	st = batch_rows_read(batch_source_rows(b), b->m, &t->item, b->batch_size, in, err);
	pthread_mutex_unlock(&b->lock);
	return st;
}

static pb_status run_item(const struct batch_thread *t, struct pt2box_error *err)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct cmd_tensors in = {0};
	pb_status st = read_item(t, &in, err);

	opt.retries = t->b->o->retries;
	if (!st)
		st = pt2box_run(t->b->m, in.t, in.n, &opt, t->out, err);
	cmd_tensors_deinit(&in);
	return st;
}

static pb_status write_outputs(int fd, const void *arg, struct pt2box_error *err)
{
	const struct batch_thread *t = arg;

	return cmd_outputs_write(fd, pb_format_of(t->item.name), t->out, pt2box_model_n_outputs(t->b->m), t->b->batch_size,
				 (int64_t)t->item.rows, err);
}

static void drop_outputs(const struct batch_thread *t)
{
	for (size_t i = 0; i < pt2box_model_n_outputs(t->b->m); i++) {
		pt2box_tensor_free(t->out[i]);
		t->out[i] = NULL;
	}
}

static void check_failures(struct batch *b)
{
	struct pt2box_error e;

	if (!b->o->max_failures || atomic_load(&b->failures) <= b->o->max_failures)
		return;
	pb_error_set(&e, PT2BOX_LIMIT, "more than %u items failed", b->o->max_failures);
	batch_stop(b, &e);
}

static void do_item(const struct batch_thread *t)
{
	struct batch *b = t->b;
	struct pt2box_error e = {.status = PT2BOX_OK}, why;
	pb_status st = run_item(t, &e);

	if (!st) {
		st = batch_write(t, t->item.name, write_outputs, t, &e);
		drop_outputs(t);
	} else if (st == PT2BOX_MODEL_CRASHED && e.signal == SIGKILL) {
		/* Workers were killed from outside, as often as it may be retried: not its fault, it stays to be done. */
		atomic_fetch_add(&b->unfinished, 1);
		return;
	} else if (is_its_own_fault(st)) {
		why = e;
		st = batch_quarantine(t, &why, &e);
		e = st ? e : why;
		atomic_fetch_add(&b->failures, st == PT2BOX_OK);
		check_failures(b);
	}
	if (st)
		batch_stop(b, &e);
	else
		batch_journal_add(b->journal, t->item.name, &e);
}

void *batch_thread_main(void *data)
{
	struct batch_thread *t = data;
	struct pt2box_error e;
	pb_status st = PT2BOX_OK;

	while (!atomic_load(&t->b->stop)) {
		st = batch_source_next(t->b, &t->item, &e);
		if (st)
			break;
		do_item(t);
	}
	if (st && st != PT2BOX_NOT_FOUND)
		batch_stop(t->b, &e);
	return NULL;
}
