/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where items come from: a folder with all below it, a list of paths, or the rows of one file. Streamed, twice: once to
 * count, once to hand out. What is done already, its result being there, is left out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/batch.h"

#define DEPTH_MAX 64

struct batch_source {
	const char *path;
	/* One of: */
	DIR *dir[DEPTH_MAX];
	FILE *list;
	struct pb_array_file *rows;

	int depth;		 /* of folders that are open */
	size_t length[DEPTH_MAX]; /* of the name up to each */
	char name[PATH_MAX];	 /* of the folder, ending in a slash; "" */
	struct stat output;	 /* not entered */
	uint64_t ignored, n_rows, next_part;
	char *line;
	size_t line_room;
};

uint64_t batch_shard_of(const char *name, uint64_t shards)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3u;
	return (h ^ h >> 32) % shards;
}

static pb_status unreadable(const char *path, struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_IO, "%s cannot be read: %s", path, strerror(errno));
}

/* ---- folders ---- */

static pb_status enter(struct batch_source *s, const char *name, struct pt2box_error *err)
{
	size_t n = strlen(s->name), add = name ? strlen(name) + 1 : 0;
	int fd = -1;
	struct stat sb;

	if (s->depth == DEPTH_MAX || n + add >= sizeof(s->name))
		return pb_error_set(err, PT2BOX_IO, "%s/%s: folders are nested too deeply", s->path, s->name);
	fd = name ? openat(dirfd(s->dir[s->depth - 1]), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
		  : open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &sb) != 0) {
		pb_status st = unreadable(name ? name : s->path, err);

		if (fd >= 0)
			close(fd);
		return st;
	}
	/* Results are no inputs. */
	if (name && sb.st_dev == s->output.st_dev && sb.st_ino == s->output.st_ino) {
		close(fd);
		return PT2BOX_OK;
	}
	s->dir[s->depth] = fdopendir(fd);
	if (!s->dir[s->depth]) {
		close(fd);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	}
	if (name)
		snprintf(s->name + n, sizeof(s->name) - n, "%s/", name);
	s->length[s->depth++] = strlen(s->name);
	return PT2BOX_OK;
}

static void leave(struct batch_source *s)
{
	closedir(s->dir[--s->depth]);
	s->name[s->depth ? s->length[s->depth - 1] : 0] = '\0';
}

static bool is_folder(const struct batch_source *s, const struct dirent *e)
{
	struct stat sb;

	if (e->d_type != DT_UNKNOWN)
		return e->d_type == DT_DIR; /* a link to a folder is not followed */
	return fstatat(dirfd(s->dir[s->depth - 1]), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(sb.st_mode);
}

static pb_status next_file(struct batch_source *s, struct batch_item *ret, struct pt2box_error *err)
{
	while (s->depth) {
		const struct dirent *e;
		pb_status st = PT2BOX_OK;

		errno = 0;
		e = readdir(s->dir[s->depth - 1]);
		if (!e && errno)
			return unreadable(s->path, err);
		if (!e)
			leave(s);
		else if (e->d_name[0] == '.')
			continue; /* hidden */
		else if (is_folder(s, e))
			st = enter(s, e->d_name, err);
		else if (pb_format_of(e->d_name) == PB_FORMAT_NONE)
			s->ignored++;
		else if ((size_t)snprintf(ret->name, sizeof(ret->name), "%s%s", s->name, e->d_name) < sizeof(ret->name) &&
			 (size_t)snprintf(ret->path, sizeof(ret->path), "%s/%s", s->path, ret->name) < sizeof(ret->path))
			return PT2BOX_OK;
		else
			return pb_error_set(err, PT2BOX_IO, "%s/%s: a name that is too long", s->path, s->name);
		if (st)
			return st;
	}
	return PT2BOX_NOT_FOUND;
}

/* ---- lists ---- */

/* Where a listed file's result goes: its path, below the output folder. */
static bool is_below(const char *name)
{
	for (const char *p = name; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || !p[2]))
			return false;
	}
	return true;
}

static pb_status next_line(struct batch_source *s, struct batch_item *ret, struct pt2box_error *err)
{
	ssize_t n;

	while ((n = getline(&s->line, &s->line_room, s->list)) >= 0) {
		const char *name = s->line;

		while (n && (s->line[n - 1] == '\n' || s->line[n - 1] == '\r'))
			s->line[--n] = '\0';
		if (!n || *name == '#')
			continue;
		while (*name == '/' || strncmp(name, "./", 2) == 0)
			name += *name == '/' ? 1 : 2;
		if (!is_below(name) || pb_format_of(name) == PB_FORMAT_NONE || (size_t)n >= sizeof(ret->path))
			return pb_error_set(err, PT2BOX_USAGE,
					    "%s: %.200s: a line is the path of an .npz, .npy or .safetensors file, without \"..\"",
					    s->path, s->line);
		snprintf(ret->name, sizeof(ret->name), "%s", name);
		snprintf(ret->path, sizeof(ret->path), "%s", s->line);
		return PT2BOX_OK;
	}
	return ferror(s->list) ? unreadable(s->path, err) : PT2BOX_NOT_FOUND;
}

/* ---- rows ---- */

static pb_status next_part(struct batch_source *s, uint32_t size, struct batch_item *ret)
{
	const char *dot = strrchr(s->path, '.');

	ret->first = s->next_part * size;
	if (ret->first >= s->n_rows)
		return PT2BOX_NOT_FOUND;
	ret->rows = s->n_rows - ret->first < size ? s->n_rows - ret->first : size;
	ret->index = s->next_part++;
	ret->path[0] = '\0';
	snprintf(ret->name, sizeof(ret->name), "part-%08llu%.20s", (unsigned long long)ret->index, dot);
	return PT2BOX_OK;
}

/* ---- all of them ---- */

/* With b->lock held, or before there are threads. */
static pb_status next(struct batch *b, struct batch_item *ret, struct pt2box_error *err)
{
	struct batch_source *s = b->source;
	pb_status st;

	do {
		st = s->rows ? next_part(s, b->batch_size, ret) : s->list ? next_line(s, ret, err) : next_file(s, ret, err);
		if (st)
			return st;
		if (strncmp(ret->name, BATCH_QUARANTINE "/", sizeof(BATCH_QUARANTINE)) == 0 ||
		    strncmp(ret->name, BATCH_PRIVATE "/", sizeof(BATCH_PRIVATE)) == 0)
			return pb_error_set(err, PT2BOX_USAGE, "%s: the name is taken for what went wrong", ret->path);
	} while (b->shards > 1 && batch_shard_of(ret->name, b->shards) != b->shard);
	return PT2BOX_OK;
}

static pb_status rewind_source(struct batch_source *s, struct pt2box_error *err)
{
	while (s->depth)
		leave(s);
	s->next_part = s->ignored = 0;
	if (s->list)
		rewind(s->list);
	return s->list || s->rows ? PT2BOX_OK : enter(s, NULL, err);
}

static pb_status open_path(struct batch *b, struct batch_source *s, struct pt2box_error *err)
{
	struct stat sb;
	pb_status st;

	if (stat(s->path, &sb) != 0 || fstat(b->out_fd, &s->output) != 0)
		return unreadable(s->path, err);
	if (S_ISDIR(sb.st_mode)) {
		if (sb.st_dev == s->output.st_dev && sb.st_ino == s->output.st_ino)
			return pb_error_set(err, PT2BOX_USAGE, "%s: inputs and outputs are in the same folder", s->path);
		return PT2BOX_OK;
	}
	if (pb_format_of(s->path) != PB_FORMAT_NONE) {
		st = pb_array_file_open(s->path, &s->rows, err);
		return st ? st : batch_rows_check(s->rows, &s->n_rows, err);
	}
	/* A pipe cannot be read twice. */
	s->list = S_ISREG(sb.st_mode) ? fopen(s->path, "re") : NULL;
	if (!s->list)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be read: neither a folder nor a list nor a file of arrays", s->path);
	return PT2BOX_OK;
}

pb_status batch_source_open(struct batch *b, const char *path, struct pt2box_error *err)
{
	struct batch_source *s = calloc(1, sizeof(*s));

	if (!s)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	b->source = s;
	s->path = path;
	return open_path(b, s, err);
}

pb_status batch_source_count(struct batch *b, struct pt2box_error *err)
{
	struct batch_item *item = malloc(sizeof(*item));
	pb_status st = item ? rewind_source(b->source, err) : pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");

	for (b->total = 0; !st; b->total++) {
		st = next(b, item, err);
		if (st == PT2BOX_NOT_FOUND)
			break;
	}
	free(item);
	return st == PT2BOX_NOT_FOUND ? rewind_source(b->source, err) : st;
}

/* Entered, and what was written then is still there. */
static pb_status is_done(struct batch *b, const struct batch_item *item, bool *ret, struct pt2box_error *err)
{
	char reason[PATH_MAX + 64];
	const char *file = item->name;
	pb_status was = PT2BOX_OK, st = batch_journal_find(b->journal, item->name, &was, err);

	*ret = false;
	if (st)
		return st == PT2BOX_NOT_FOUND ? PT2BOX_OK : st;
	if (was) {
		snprintf(reason, sizeof(reason), BATCH_QUARANTINE "/%s.reason.txt", item->name);
		file = reason;
	}
	*ret = faccessat(b->out_fd, file, F_OK, 0) == 0;
	if (*ret)
		atomic_fetch_add(was ? &b->quarantined : &b->before, 1);
	return PT2BOX_OK;
}

pb_status batch_source_next(struct batch *b, struct batch_item *ret, struct pt2box_error *err)
{
	bool done = true;
	pb_status st = PT2BOX_OK;

	pthread_mutex_lock(&b->lock);
	while (!st && done && !atomic_load(&b->stop)) {
		st = next(b, ret, err);
		if (!st)
			st = is_done(b, ret, &done, err);
	}
	pthread_mutex_unlock(&b->lock);
	return st ? st : done ? PT2BOX_NOT_FOUND : PT2BOX_OK;
}

struct pb_array_file *batch_source_rows(const struct batch *b)
{
	return b->source->rows;
}

uint64_t batch_source_ignored(const struct batch *b)
{
	return b->source ? b->source->ignored : 0;
}

void batch_source_close(struct batch *b)
{
	struct batch_source *s = b->source;

	if (!s)
		return;
	while (s->depth)
		leave(s);
	if (s->list)
		fclose(s->list);
	pb_array_file_free(s->rows);
	free(s->line);
	free(s);
	b->source = NULL;
}
