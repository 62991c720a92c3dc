/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code and constants in sealed memory, counted by reference, and kept once where models of one tenant have the same. What
 * intake says of its bytes only finds a candidate: intake has parsed hostile bytes. A second one, which parses nothing,
 * compares the two byte by byte before one of them is dropped.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/broker.h"

/* A comparison takes some milliseconds of a start: not for memory that costs less than that to keep twice. Most packages
 * have little code; where constants come from outside, sharing is what is asked for. */
static const uint64_t share_min_bytes[] = {[PB_MEM_CODE] = 1u << 20, [PB_MEM_CONSTANTS] = 1u << 15};

pb_status pb_memory_new(struct pb_broker *b, struct pb_tenant *t, enum pb_memory_kind kind, int *fd_take,
			struct pb_memory **ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = pb_take_fd(fd_take);
	struct pb_memory *mem;
	struct stat sb;
	int ro;
	pb_status st = pb_memfd_seal(fd, err);

	if (!st)
		st = pb_fd_readonly(fd, &ro, err);
	if (st)
		return st;
	mem = fstat(ro, &sb) == 0 ? calloc(1, sizeof(*mem)) : NULL;
	st = mem ? pb_tenant_charge(t, PB_LIMIT_CONSTANTS, (uint64_t)sb.st_size, err) :
		   pb_error_set(err, PT2BOX_NO_MEMORY, "the broker has no memory for a record");
	if (st) {
		close(ro);
		free(mem);
		return st;
	}
	*mem = (struct pb_memory){.next = b->memories,
				  .refs = 1,
				  .kind = kind,
				  .tenant = t,
				  .fd = ro,
				  .bytes = (uint64_t)sb.st_size};
	b->memories = mem;
	*ret = mem;
	return PT2BOX_OK;
}

struct pb_memory *pb_memory_ref(struct pb_memory *mem)
{
	mem->refs++;
	return mem;
}

struct pb_memory *pb_memory_unref(struct pb_broker *b, struct pb_memory *mem)
{
	struct pb_memory **p = &b->memories;

	if (!mem || --mem->refs)
		return NULL;
	while (*p && *p != mem)
		p = &(*p)->next;
	if (*p)
		*p = mem->next;
	pb_tenant_discharge(mem->tenant, PB_LIMIT_CONSTANTS, mem->bytes);
	close(mem->fd);
	free(mem);
	return NULL;
}

void pb_memory_set_key_text(struct pb_memory *mem, const char *text)
{
	size_t n = strlen(text);

	mem->has_key = n == sizeof(mem->key) && strspn(text, "0123456789abcdef") == n;
	if (mem->has_key)
		memcpy(mem->key, text, n);
}

void pb_buffer_set(struct pb_broker *b, struct pb_buffer *dst, struct pb_memory *mem_take, uint64_t offset)
{
	pb_memory_unref(b, dst->memory);
	*dst = (struct pb_buffer){mem_take, offset};
}

/* ---- sharing ---- */

static struct pb_memory *find_twin(const struct pb_broker *b, const struct pb_memory *mine)
{
	if (!mine->has_key || mine->bytes < share_min_bytes[mine->kind])
		return NULL;
	for (struct pb_memory *o = b->memories; o; o = o->next)
		if (o != mine && o->has_key && o->tenant == mine->tenant && o->kind == mine->kind &&
		    o->bytes == mine->bytes && memcmp(o->key, mine->key, sizeof(o->key)) == 0)
			return o;
	return NULL;
}

static void compared(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *e)
{
	struct pb_share *s = object;

	s->job = NULL;
	if (e->status) {
		pb_log(b, "model %u keeps its own memory: %s", m->id, e->text);
		s->other = pb_memory_unref(b, s->other);
	} else {
		pb_memory_unref(b, *s->mine);
		*s->mine = s->other;
		s->other = NULL;
	}
	s->then(b, m);
}

bool pb_share_begin(struct pb_broker *b, struct pb_model_rec *m, struct pb_share *s, struct pb_memory **mine,
		    void (*then)(struct pb_broker *, struct pb_model_rec *))
{
	struct pb_memory *other = *mine ? find_twin(b, *mine) : NULL;
	struct pb_msg_spawn_compare msg = {.id = 0};
	int fds[2];

	if (!other)
		return false;
	fds[0] = (*mine)->fd;
	fds[1] = other->fd;
	if (pb_job_start(b, m, PB_MSG_spawn_compare, &msg, fds, 2, "memory could not be compared", compared, s, &s->job,
			 NULL))
		return false;
	s->mine = mine;
	s->other = pb_memory_ref(other);
	s->then = then;
	return true;
}

void pb_share_give_up(struct pb_broker *b, struct pb_share *s)
{
	s->job = pb_job_give_up(b, s->job);
	s->other = pb_memory_unref(b, s->other);
}
