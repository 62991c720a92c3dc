/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: which items are done, which were quarantined. An item is entered only when what it wrote is on disk: one
 * thread takes all that was finished in 100 ms, or 256 of them, makes the file system durable by one syncfs, then commits
 * them in one transaction. What is lost with the process, or the machine, is entries, never results that were entered.
 * The journal itself need not be flushed for that; a write-ahead log without fsync stays consistent.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/batch.h"

#define PERIOD_NS 100000000u
#define TOGETHER 256u
#define WAITING_MAX 4096u

struct record {
	struct record *next;
	pb_status status;
	const char *reason; /* behind the name */
	char name[];
};

struct batch_journal {
	struct batch *b;
	sqlite3 *db;
	sqlite3_stmt *find, *add;
	bool empty; /* nothing is in it from before */
	pthread_mutex_t db_lock;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t more, fewer;
	struct record *first, **last;
	uint32_t n;
	bool stop, failed;
};

static pb_status db_error(const struct batch_journal *j, const char *what, struct pt2box_error *err)
{
	int rc = sqlite3_errcode(j->db);

	if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
		return pb_error_set(err, PT2BOX_DENIED, "%s: another batch is writing there", j->b->o->output);
	return pb_error_set(err, PT2BOX_IO, "the journal in %s/" BATCH_PRIVATE " %s: %s", j->b->o->output, what,
			    sqlite3_errmsg(j->db));
}

static pb_status exec(const struct batch_journal *j, const char *sql, const char *what, struct pt2box_error *err)
{
	return sqlite3_exec(j->db, sql, NULL, NULL, NULL) ? db_error(j, what, err) : PT2BOX_OK;
}

/* ---- commit ---- */

static pb_status insert(struct batch_journal *j, const struct record *r)
{
	sqlite3_bind_text(j->add, 1, r->name, -1, SQLITE_STATIC);
	sqlite3_bind_int(j->add, 2, (int)r->status);
	sqlite3_bind_text(j->add, 3, r->reason, -1, SQLITE_STATIC);
	return sqlite3_step(j->add) == SQLITE_DONE && sqlite3_reset(j->add) == SQLITE_OK ? PT2BOX_OK : PT2BOX_IO;
}

static pb_status commit(struct batch_journal *j, const struct record *list, struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	if (syncfs(j->b->out_fd) != 0)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be written: %s", j->b->o->output, strerror(errno));
	pthread_mutex_lock(&j->db_lock);
	if (exec(j, "BEGIN", "cannot be written", err))
		st = PT2BOX_IO;
	for (; list && !st; list = list->next)
		if (insert(j, list))
			st = db_error(j, "cannot be written", err);
	if (!st)
		st = exec(j, "COMMIT", "cannot be written", err);
	if (st) {
		sqlite3_reset(j->add);
		sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
	}
	pthread_mutex_unlock(&j->db_lock);
	return st;
}

static void count(struct batch *b, const struct record *list)
{
	for (; list; list = list->next)
		atomic_fetch_add(list->status ? &b->quarantined : &b->done, 1);
}

static void free_list(struct record *list)
{
	while (list) {
		struct record *next = list->next;

		free(list);
		list = next;
	}
}

/* With the lock held: until it is time for a commit. */
static void await_records(struct batch_journal *j)
{
	struct timespec until;

	while (!j->n && !j->stop)
		pthread_cond_wait(&j->more, &j->lock);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += PERIOD_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	while (j->n < TOGETHER && !j->stop)
		if (pthread_cond_timedwait(&j->more, &j->lock, &until))
			break;
}

static void *main_of(void *data)
{
	struct batch_journal *j = data;
	struct pt2box_error e;

	pthread_mutex_lock(&j->lock);
	for (;;) {
		struct record *list;

		await_records(j);
		list = j->first;
		j->first = NULL;
		j->last = &j->first;
		j->n = 0;
		pthread_cond_broadcast(&j->fewer);
		if (!list)
			break;
		pthread_mutex_unlock(&j->lock);
		/* After a failure nothing more is entered: that is for the next batch to do. */
		if (!j->failed && commit(j, list, &e)) {
			j->failed = true;
			batch_stop(j->b, &e);
		}
		if (!j->failed)
			count(j->b, list);
		free_list(list);
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

void batch_journal_add(struct batch_journal *j, const char *name, const struct pt2box_error *result)
{
	size_t n = strlen(name) + 1, m = strlen(result->text) + 1;
	struct record *r = malloc(sizeof(*r) + n + m);
	struct pt2box_error e;

	if (!r) {
		pb_error_set(&e, PT2BOX_NO_MEMORY, "out of memory");
		batch_stop(j->b, &e);
		return;
	}
	*r = (struct record){.status = result->status, .reason = r->name + n};
	memcpy(r->name, name, n);
	memcpy(r->name + n, result->status ? result->text : "", result->status ? m : 1);
	pthread_mutex_lock(&j->lock);
	while (j->n >= WAITING_MAX)
		pthread_cond_wait(&j->fewer, &j->lock);
	*j->last = r;
	j->last = &r->next;
	j->n++;
	if (j->n == 1 || j->n == TOGETHER)
		pthread_cond_signal(&j->more);
	pthread_mutex_unlock(&j->lock);
}

/* ---- look ---- */

pb_status batch_journal_find(struct batch_journal *j, const char *name, pb_status *ret, struct pt2box_error *err)
{
	pb_status st = PT2BOX_NOT_FOUND;
	int rc;

	if (j->empty)
		return PT2BOX_NOT_FOUND;
	pthread_mutex_lock(&j->db_lock);
	sqlite3_bind_text(j->find, 1, name, -1, SQLITE_STATIC);
	rc = sqlite3_step(j->find);
	if (rc == SQLITE_ROW) {
		*ret = (pb_status)sqlite3_column_int(j->find, 0);
		st = PT2BOX_OK;
	} else if (rc != SQLITE_DONE) {
		st = db_error(j, "cannot be read", err);
	}
	sqlite3_reset(j->find);
	pthread_mutex_unlock(&j->db_lock);
	return st;
}

/* ---- open ---- */

static pb_status same(struct batch_journal *j, const char *key, const char *value, struct pt2box_error *err)
{
	sqlite3_stmt *q;
	const char *was;
	pb_status st = PT2BOX_OK;

	if (sqlite3_prepare_v2(j->db, "SELECT value FROM about WHERE key = ?", -1, &q, NULL))
		return db_error(j, "cannot be read", err);
	sqlite3_bind_text(q, 1, key, -1, SQLITE_STATIC);
	was = sqlite3_step(q) == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
	if (!was || strcmp(was, value) != 0)
		st = pb_error_set(err, PT2BOX_DENIED,
				  "%s: the batch there is of another %s (it was: %.150s; now: %.150s): results would not belong together", j->b->o->output,
				  key, was ? was : "?", value);
	sqlite3_finalize(q);
	return st;
}

static pb_status say(struct batch_journal *j, const char *key, const char *value, struct pt2box_error *err)
{
	sqlite3_stmt *q;
	int rc;

	if (sqlite3_prepare_v2(j->db, "INSERT INTO about VALUES (?, ?)", -1, &q, NULL))
		return db_error(j, "cannot be written", err);
	sqlite3_bind_text(q, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_text(q, 2, value, -1, SQLITE_STATIC);
	rc = sqlite3_step(q);
	sqlite3_finalize(q);
	return rc == SQLITE_DONE ? PT2BOX_OK : db_error(j, "cannot be written", err);
}

static pb_status begin_new(struct batch_journal *j, const char *const (*about)[2], size_t n, struct pt2box_error *err)
{
	pb_status st = exec(j,
			    "BEGIN;"
			    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
			    "CREATE TABLE item (name TEXT PRIMARY KEY, status INTEGER NOT NULL, reason TEXT) WITHOUT ROWID",
			    "cannot be made", err);

	for (size_t i = 0; i < n && !st; i++)
		st = say(j, about[i][0], about[i][1], err);
	j->empty = true;
	return st ? st : exec(j, "COMMIT", "cannot be made", err);
}

/* Is there a batch already? */
static pb_status has_about(struct batch_journal *j, bool *ret, struct pt2box_error *err)
{
	sqlite3_stmt *q;
	int rc;

	if (sqlite3_prepare_v2(j->db, "SELECT 1 FROM sqlite_master WHERE name = 'about'", -1, &q, NULL))
		return db_error(j, "cannot be read", err);
	rc = sqlite3_step(q);
	sqlite3_finalize(q);
	*ret = rc == SQLITE_ROW;
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? PT2BOX_OK : db_error(j, "cannot be read", err);
}

static pb_status open_db(struct batch_journal *j, const struct batch_about *about, struct pt2box_error *err)
{
	const char *const rows[][2] = {{"package", about->package}, {"options", about->options}, {"input", about->input}};
	const struct batch *b = j->b;
	char path[PATH_MAX + 64];
	bool there = false;
	pb_status st;

	if (b->shards > 1)
		snprintf(path, sizeof(path), "%s/" BATCH_PRIVATE "/journal-%llu-of-%llu.sqlite", b->o->output,
			 (unsigned long long)b->shard, (unsigned long long)b->shards);
	else
		snprintf(path, sizeof(path), "%s/" BATCH_PRIVATE "/journal.sqlite", b->o->output);
	if (sqlite3_open_v2(path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL))
		return db_error(j, "cannot be opened", err);
	/* Exclusive: one batch at a time, and no shared memory, which is not to be had on every file system. */
	st = exec(j, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; COMMIT",
		  "cannot be opened", err);
	if (!st)
		st = has_about(j, &there, err);
	if (!st && there && !b->o->resume)
		st = pb_error_set(err, PT2BOX_DENIED, "%s holds a batch already: --resume goes on with it", b->o->output);
	for (size_t i = 0; i < 3 && !st && there; i++)
		st = same(j, rows[i][0], rows[i][1], err);
	if (!st && !there)
		st = begin_new(j, rows, 3, err);
	if (!st && (sqlite3_prepare_v2(j->db, "SELECT status FROM item WHERE name = ?", -1, &j->find, NULL) ||
		    sqlite3_prepare_v2(j->db, "INSERT OR REPLACE INTO item VALUES (?, ?, ?)", -1, &j->add, NULL)))
		st = db_error(j, "cannot be read", err);
	return st;
}

pb_status batch_journal_open(struct batch *b, const struct batch_about *about, struct pt2box_error *err)
{
	struct batch_journal *j = calloc(1, sizeof(*j));
	pb_status st;

	if (!j)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	b->journal = j;
	j->b = b;
	j->last = &j->first;
	pthread_mutex_init(&j->lock, NULL);
	pthread_mutex_init(&j->db_lock, NULL);
	pthread_cond_init(&j->more, NULL);
	pthread_cond_init(&j->fewer, NULL);
	st = open_db(j, about, err);
	if (st)
		return st;
	errno = pthread_create(&j->thread, NULL, main_of, j);
	if (errno)
		return pb_error_sys(err, "cannot start a thread");
	j->running = true;
	return PT2BOX_OK;
}

void batch_journal_close(struct batch_journal *j)
{
	if (!j)
		return;
	if (j->running) {
		pthread_mutex_lock(&j->lock);
		j->stop = true;
		pthread_cond_signal(&j->more);
		pthread_mutex_unlock(&j->lock);
		pthread_join(j->thread, NULL);
	}
	sqlite3_finalize(j->find);
	sqlite3_finalize(j->add);
	sqlite3_close(j->db);
	free_list(j->first);
	free(j);
}
