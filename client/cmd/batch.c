/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box batch: see batch.h. Exit status: 0 all done, 3 some quarantined, 1 not all were tried; else nothing was begun. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/batch.h"

#define EXIT_SOME_QUARANTINED 3
#define EXIT_INCOMPLETE 1

/* ---- signals: end well, at the second one at once ---- */

static struct batch *interrupted;

static void on_signal(int sig)
{
	signal(sig, SIG_DFL);
	atomic_store(&interrupted->stop, true);
	atomic_store(&interrupted->signalled, sig);
}

static void catch_signals(struct batch *b)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	interrupted = b;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like any other */
}

/* ---- what it is about ---- */

static bool parse_shard(struct batch *b, const char *text)
{
	char *end;

	b->shards = 1;
	if (!text)
		return true;
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	b->shard = strtoull(text, &end, 10);
	if (*end != '/' || end[1] < '0' || end[1] > '9')
		return false;
	b->shards = strtoull(end + 1, &end, 10);
	return !*end && !errno && b->shard < b->shards;
}

/* What a file's bytes are, for telling whether it is the same one: FNV-1a, 64 bits. */
static pb_status sum_file(const char *path, uint64_t *ret, struct pt2box_error *err)
{
	uint8_t buffer[65536];
	FILE *f = path ? fopen(path, "re") : NULL;
	uint64_t h = 0xcbf29ce484222325u;
	size_t n;

	*ret = 0;
	if (!path)
		return PT2BOX_OK;
	if (!f)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be opened: %s", path, strerror(errno));
	while ((n = fread(buffer, 1, sizeof(buffer), f)) > 0)
		for (size_t i = 0; i < n; i++)
			h = (h ^ buffer[i]) * 0x100000001b3u;
	fclose(f);
	*ret = h;
	return PT2BOX_OK;
}

/* The rows of a run: as asked, else as compiled, else 32, as far as the package allows. */
static pb_status choose_rows(struct batch *b, json_t *info, struct pt2box_error *err)
{
	json_t *dim = json_array_get(json_object_get(json_array_get(json_object_get(info, "inputs"), 0), "dims"), 0);
	json_t *low = json_object_get(dim, "min"), *high = json_object_get(dim, "max");
	json_int_t min = json_is_integer(low) ? json_integer_value(low) : 1,
		   max = json_is_integer(high) ? json_integer_value(high) : UINT32_MAX;
	json_int_t n = b->o->batch_size ? b->o->batch_size : 32;

	if (!b->o->batch_size)
		n = n < min ? min : n > max ? max : n;
	if (n < min || n > max)
		return pb_error_set(err, PT2BOX_USAGE, "--batch-size %lld: the package takes %lld to %lld rows", (long long)n,
				    (long long)min, (long long)max);
	b->batch_size = (uint32_t)(n < 1 ? 1 : n);
	return PT2BOX_OK;
}

static const char *text_of(json_t *o, const char *key)
{
	const char *t = json_string_value(json_object_get(o, key));

	return t ? t : "";
}

static pb_status describe(struct batch *b, json_t *info, struct batch_about *ret, struct pt2box_error *err)
{
	const struct cmd_options *o = b->o;
	uint64_t constants, ops;
	struct stat sb;
	pb_status st = PT2BOX_OK;

	if (batch_source_rows(b))
		st = choose_rows(b, info, err);
	if (!st)
		st = sum_file(o->constants, &constants, err);
	if (!st)
		st = sum_file(o->ops, &ops, err);
	if (st)
		return st;
	snprintf(ret->package, sizeof(ret->package), "%s", text_of(info, "package_sha256"));
	snprintf(ret->options, sizeof(ret->options), "model %.100s, backend %s, profile %s, threads %u%s, constants %llx, ops %llx, rows %u",
		 o->name ? o->name : "model", text_of(info, "backend"), o->profile ? o->profile : "default", o->threads,
		 o->single_threaded ? ", single-threaded" : "", (unsigned long long)constants, (unsigned long long)ops, b->batch_size);
	snprintf(ret->input, sizeof(ret->input), "files");
	if (batch_source_rows(b) && stat(o->inputs[0], &sb) == 0)
		snprintf(ret->input, sizeof(ret->input), "rows of a file of %lld bytes of %lld.%09ld", (long long)sb.st_size,
			 (long long)sb.st_mtim.tv_sec, sb.st_mtim.tv_nsec);
	return PT2BOX_OK;
}

static pb_status about(struct batch *b, struct batch_about *ret, struct pt2box_error *err)
{
	char *text = NULL;
	json_t *info;
	pb_status st = pt2box_model_describe(b->m, &text, err);

	if (st)
		return st;
	info = json_loads(text, 0, NULL);
	pt2box_free_text(text);
	st = info ? describe(b, info, ret, err) : pb_error_set(err, PT2BOX_INTERNAL, "the model cannot be described");
	json_decref(info);
	return st;
}

/* ---- preparation ---- */

static pb_status open_output(struct batch *b, struct pt2box_error *err)
{
	const char *path = b->o->output;

	if (mkdir(path, 0777) != 0 && errno != EEXIST)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be made: %s", path, strerror(errno));
	b->out_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->out_fd < 0)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be opened: %s", path, strerror(errno));
	return batch_make_folders(b, BATCH_PRIVATE "/", err);
}

static pb_status prepare(struct batch *b, struct pt2box_error *err)
{
	struct batch_about a;
	pb_status st;

	if (b->o->n_inputs != 1 || !b->o->output)
		return pb_error_set(err, PT2BOX_USAGE, "--input and --output are needed, once each: see pt2box batch --help");
	if (!parse_shard(b, b->o->shard))
		return pb_error_set(err, PT2BOX_USAGE, "--shard %s: not I/N with I from 0 to N - 1", b->o->shard);
	st = open_output(b, err);
	if (!st)
		st = batch_source_open(b, b->o->inputs[0], err);
	if (!st)
		st = cmd_load(b->o, &b->c, &b->m, err);
	if (!st && pt2box_model_is_stateful(b->m))
		st = pb_error_set(err, PT2BOX_UNSUPPORTED,
				  "the package keeps a state from run to run: what an item gives would depend on those before it");
	if (!st)
		st = about(b, &a, err);
	if (!st)
		st = batch_journal_open(b, &a, err);
	return st ? st : batch_source_count(b, err);
}

/* ---- the work ---- */

static unsigned int n_threads(const struct batch *b)
{
	/* Each worker busy, and as many items being read or written. */
	unsigned int n = b->o->runners * 2 + 1;

	return n < BATCH_THREADS_MAX ? n : BATCH_THREADS_MAX;
}

static void work(struct batch *b)
{
	unsigned int n = n_threads(b), started = 0;
	struct batch_thread *t = calloc(n, sizeof(*t));
	struct pt2box_error e;
	sigset_t all, before;

	if (!t) {
		pb_error_set(&e, PT2BOX_NO_MEMORY, "out of memory");
		batch_stop(b, &e);
		return;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	batch_progress_start(b);
	for (; started < n; started++) {
		t[started].b = b;
		t[started].number = started;
		t[started].out = calloc(pt2box_model_n_outputs(b->m) + 1, sizeof(struct pt2box_tensor *));
		if (!t[started].out || pthread_create(&t[started].thread, NULL, batch_thread_main, &t[started]))
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!started) {
		pb_error_set(&e, PT2BOX_SYSTEM, "no thread can be started");
		batch_stop(b, &e);
	}
	for (unsigned int i = 0; i < started; i++)
		pthread_join(t[i].thread, NULL);
	for (unsigned int i = 0; i < n; i++)
		free(t[i].out);
	free(t);
}

static void remove_temporary(const struct batch *b)
{
	char temp[64];

	for (unsigned int i = 0; i < BATCH_THREADS_MAX; i++) {
		snprintf(temp, sizeof(temp), BATCH_PRIVATE "/tmp-%llu-%u", (unsigned long long)b->shard, i);
		unlinkat(b->out_fd, temp, 0);
	}
}

/* Why it is not complete, in one line. */
static pb_status incomplete(const struct batch *b, struct pt2box_error *err)
{
	int sig = atomic_load(&b->signalled), e = b->fatal.sys_errno;

	if (b->fatal.status)
		pb_error_set(err, b->fatal.status, "%s%s; --resume goes on with it", b->fatal.text,
			     e == ENOSPC || e == EDQUOT ? ": make room there" : "");
	else if (sig)
		pb_error_set(err, PT2BOX_CANCELLED, "ended by SIG%s; --resume goes on with it", sigabbrev_np(sig));
	else
		pb_error_set(err, PT2BOX_MODEL_CRASHED, "workers were killed from outside, again and again: %llu items are left; --resume goes on with it",
			     (unsigned long long)atomic_load(&b->unfinished));
	fprintf(stderr, "pt2box: %s: %s\n", pt2box_status_name(err->status), err->text);
	err->text[0] = '\0'; /* said */
	return (pb_status)EXIT_INCOMPLETE;
}

pb_status cmd_batch(const struct cmd_options *o, struct pt2box_error *err)
{
	struct batch b = {.o = o, .out_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};
	pb_status st = prepare(&b, err);

	if (!st) {
		catch_signals(&b);
		work(&b);
	}
	batch_journal_close(b.journal);
	if (!st) {
		batch_progress_stop(&b);
		remove_temporary(&b);
		if (b.fatal.status || atomic_load(&b.signalled) || atomic_load(&b.unfinished))
			st = incomplete(&b, err);
		else if (atomic_load(&b.quarantined))
			st = (pb_status)EXIT_SOME_QUARANTINED;
	}
	batch_source_close(&b);
	pt2box_unload(b.m);
	pt2box_close(b.c);
	if (b.out_fd >= 0)
		close(b.out_fd);
	return st;
}
