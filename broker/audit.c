/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log: who loaded what, what was refused, what died or was killed, and why. One line of JSON an event, in one
 * write to a file that is open for appending, so that lines stay whole and the operator may truncate it (copytruncate).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "broker/broker.h"

#define LINE_MAX_BYTES 4096u /* beyond all fields at their longest, each byte escaped */
#define SHA_BYTES 32u

pb_status pb_audit_open(struct pb_broker *b, struct pt2box_error *err)
{
	const char *path = b->config.audit_path;
	time_t now = time(NULL);
	struct stat sb;
	struct tm tm;

	b->audit_fd = -1;
	if (!path)
		return PT2BOX_OK;
	/* Never a pipe or a socket: its reader could hold the broker up. */
	b->audit_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK, 0640);
	if (b->audit_fd < 0)
		return pb_error_sys(err, "%s", path);
	if (fstat(b->audit_fd, &sb) != 0 || !S_ISREG(sb.st_mode))
		return pb_error_set(err, PT2BOX_USAGE, "%s, for the audit log, is not a regular file", path);
	gmtime_r(&now, &tm); /* reads what it needs while there are files */
	return PT2BOX_OK;
}

static void field(FILE *f, const char *key, const char *text)
{
	char safe[481];

	if (!text || !text[0])
		return;
	pb_text_escape(safe, sizeof(safe), text, strlen(text));
	fprintf(f, ",\"%s\":", key);
	pb_json_string(f, safe);
}

static void when(FILE *f)
{
	struct timespec t;
	struct tm tm;
	char text[32];

	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(f, "{\"time\":\"%s.%03ldZ\"", text, t.tv_nsec / 1000000);
}

static void about_model(FILE *f, const struct pb_model_rec *m)
{
	fprintf(f, ",\"serial\":%u", m->serial);
	field(f, "name", m->repo ? m->repo->conf->name : m->model_name[0] ? m->model_name : m->opt.model);
	if (!m->code || !m->code->has_key)
		return;
	fputs(",\"sha256\":\"", f);
	for (size_t i = 0; i < SHA_BYTES; i++)
		fprintf(f, "%02x", m->code->key[sizeof(m->code->key) - SHA_BYTES + i]);
	fputc('"', f);
}

void pb_audit(struct pb_broker *b, const struct pb_client *c, const struct pb_model_rec *m, const char *event,
	      const char *what, const struct pt2box_error *why)
{
	char line[LINE_MAX_BYTES];
	ssize_t n;
	FILE *f;

	if (b->audit_fd < 0)
		return;
	f = fmemopen(line, sizeof(line), "w");
	if (!f) {
		b->audit_lost++;
		return;
	}
	when(f);
	fprintf(f, ",\"event\":\"%s\"", event);
	if (c) {
		field(f, "tenant", c->tenant->name);
		fprintf(f, ",\"uid\":%u,\"pid\":%d", c->uid, c->pid);
		field(f, "program", c->program);
	}
	if (m)
		about_model(f, m);
	field(f, "process", what);
	if (why) {
		field(f, "status", pt2box_status_name(why->status));
		if (why->signal)
			fprintf(f, ",\"signal\":%d", why->signal);
		field(f, "cause", why->text);
	}
	if (b->audit_lost)
		fprintf(f, ",\"lost\":%llu", (unsigned long long)b->audit_lost);
	fputs("}\n", f);
	n = ftell(f);
	if (fclose(f) != 0 || n <= 0 || n >= (ssize_t)sizeof(line))
		n = 0;
	/* A full disk holds nobody up: the next line that can be written says how many are missing. */
	if (n > 0 && write(b->audit_fd, line, (size_t)n) == n)
		b->audit_lost = 0;
	else
		b->audit_lost++;
}
