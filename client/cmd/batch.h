/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box batch, inside. Threads, more of them than workers so that reading, running and writing overlap, each take an item
 * from the source, read it, run it and write what came out; one more thread makes what they wrote durable and then enters
 * it in the journal. Memory is bounded by the number of threads: names are streamed, never listed.
 *
 *	source (batch_source.c, batch_rows.c) -> item (batch_item.c, batch_write.c) -> journal (batch_journal.c)
 *
 * In the output folder: the results; quarantine/; .pt2box/, which holds the journal and files that are being written.
 */
#ifndef PT2BOX_CMD_BATCH_H
#define PT2BOX_CMD_BATCH_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/cmd/cmd.h"

#define BATCH_THREADS_MAX 130
#define BATCH_PRIVATE ".pt2box"
#define BATCH_QUARANTINE "quarantine"

struct batch_journal;
struct batch_source;

/* An item: a file, or rows of one. Its name is the path of its result in the output folder. */
struct batch_item {
	char name[PATH_MAX];
	char path[PATH_MAX]; /* where it is read; rows: "" */
	uint64_t index, first, rows; /* of rows: which part, first row, rows that there are */
};

/* What a batch must have in common with the one that it goes on with. */
struct batch_about {
	char package[80];  /* SHA-256 */
	char options[400]; /* all that can change a result */
	char input[200];   /* rows: the file's size and time; else what kind of input */
};

struct batch {
	const struct cmd_options *o;
	struct pt2box *c;
	struct pt2box_model *m;
	int out_fd; /* the output folder */
	uint64_t shard, shards;
	uint32_t batch_size; /* rows of a run; 0: files */
	struct batch_source *source;
	struct batch_journal *journal;
	uint64_t total; /* items, those done before too */
	_Atomic uint64_t done, quarantined, before; /* durably */
	_Atomic uint64_t failures;   /* of this batch, quarantined or about to be */
	_Atomic uint64_t unfinished; /* not their fault */
	_Atomic int signalled;
	_Atomic bool stop;	  /* begin nothing more */
	pthread_mutex_t lock;	  /* of what follows, and of the source */
	struct pt2box_error fatal; /* status not OK: why it stopped */
};

/* Stop, for this reason; the first one stays. */
void batch_stop(struct batch *b, const struct pt2box_error *why);

/* ---- batch_source.c ---- */
/* DIR, LIST, or FILE with rows. */
PB_CHECK pb_status batch_source_open(struct batch *b, const char *path, struct pt2box_error *err);
/* Count the items of this shard; b->batch_size is set for rows. */
PB_CHECK pb_status batch_source_count(struct batch *b, struct pt2box_error *err);
/* The next item of this shard that is not done. NOT_FOUND: there are no more. Takes turns. */
PB_CHECK pb_status batch_source_next(struct batch *b, struct batch_item *ret, struct pt2box_error *err);
void batch_source_close(struct batch *b);
/* Files in the folder that are of no format that is read here. */
uint64_t batch_source_ignored(const struct batch *b);
/* Which shard an item is of, by its name. */
uint64_t batch_shard_of(const char *name, uint64_t shards);

/* ---- batch_rows.c ---- */
/* Checks that all arrays have as many rows. */
PB_CHECK pb_status batch_rows_check(struct pb_array_file *f, uint64_t *ret_rows, struct pt2box_error *err);
/* Read rows of every array into tensors of @size rows; the last row fills up what is missing. One at a time. */
PB_CHECK pb_status batch_rows_read(struct pb_array_file *f, struct pt2box_model *m, const struct batch_item *item, uint32_t size,
				   struct cmd_tensors *ret, struct pt2box_error *err);
/* The file of rows, to be read under b->lock; NULL: items are files. */
struct pb_array_file *batch_source_rows(const struct batch *b);

/* ---- batch_item.c ---- */
struct batch_thread {
	struct batch *b;
	pthread_t thread;
	unsigned int number;
	struct pt2box_tensor **out;
	struct batch_item item;
};
/* @data: struct batch_thread. Until there are no more items, or the batch stops. */
void *batch_thread_main(void *data);

/* ---- batch_write.c ---- */
/* A file in the output folder, whole or not at all; not durable yet. @write fills it. IO, with errno, if it cannot be. */
PB_CHECK pb_status batch_write(const struct batch_thread *t, const char *name,
			       pb_status (*write)(int fd, const void *arg, struct pt2box_error *err), const void *arg,
			       struct pt2box_error *err);
/* The item's reason, and a link to its input. */
PB_CHECK pb_status batch_quarantine(const struct batch_thread *t, const struct pt2box_error *why, struct pt2box_error *err);
/* mkdir -p of what is above @name in the output folder. */
PB_CHECK pb_status batch_make_folders(const struct batch *b, const char *name, struct pt2box_error *err);

/* ---- batch_journal.c ---- */
/* DENIED: it is of another batch, or one that --resume was not said for. Starts the thread that commits. */
PB_CHECK pb_status batch_journal_open(struct batch *b, const struct batch_about *about, struct pt2box_error *err);
/* Is it entered? Returns its status: OK, or why it was quarantined; NOT_FOUND: no. */
PB_CHECK pb_status batch_journal_find(struct batch_journal *j, const char *name, pb_status *ret, struct pt2box_error *err);
/* Enter an item, soon; waits while too many wait. */
void batch_journal_add(struct batch_journal *j, const char *name, const struct pt2box_error *result);
/* Commits all that was added. A failure is in b->fatal. Accepts NULL. */
void batch_journal_close(struct batch_journal *j);

/* ---- batch_progress.c ---- */
void batch_progress_start(struct batch *b);
/* Removes the line, prints what became of it all. */
void batch_progress_stop(struct batch *b);

#endif
