/* SPDX-License-Identifier: Apache-2.0 */
/* Answers in JSON: what is enforced, what runs. Written, never parsed, by the broker; handed out in a sealed memfd. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/broker.h"
#include "confine/confine.h"
#include "ipc/process_memory.h"

void pb_json_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		if ((unsigned char)*s >= 0x20)
			fputc(*s, f);
	}
	fputc('"', f);
}

static FILE *open_text(struct pb_broker *b, struct pb_client *c, uint64_t request, char **ret_text, size_t *ret_bytes)
{
	static const struct pt2box_error e = {.status = PT2BOX_NO_MEMORY, .text = "the broker is out of memory"};
	FILE *f = open_memstream(ret_text, ret_bytes);

	if (!f)
		pb_client_fail(b, c, request, &e);
	return f;
}

static void send_text(struct pb_broker *b, struct pb_client *c, uint64_t request, FILE *f, char **text, size_t *bytes)
{
	struct pb_msg_text r = {.request = request};
	struct pt2box_error e = {.status = PT2BOX_OK};
	PB_CLEANUP(pb_close_fd) int fd = -1;
	bool ok = fflush(f) == 0;

	fclose(f);
	if (!ok || pb_memfd_from("pt2box-text", *text, *bytes, &fd, &e)) {
		pb_error_set(&e, PT2BOX_NO_MEMORY, "the answer could not be made");
		pb_client_fail(b, c, request, &e);
	} else {
		pb_client_send(c, PB_MSG_text, &r, &fd, 1);
	}
	free(*text);
}

/* Lines "name\tstate\tdetail". */
static void layers_json(FILE *f, const char *report)
{
	char *copy = strdup(report ? report : ""), *save = NULL;
	bool first = true;

	fputc('[', f);
	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		char *state = strchr(line, '\t'), *detail;

		if (!state)
			continue;
		*state++ = '\0';
		detail = strchr(state, '\t');
		if (detail)
			*detail++ = '\0';
		fputs(first ? "{\"name\":" : ",{\"name\":", f);
		first = false;
		pb_json_string(f, line);
		fputs(",\"state\":", f);
		pb_json_string(f, state);
		fputs(",\"detail\":", f);
		pb_json_string(f, detail ? detail : "");
		fputc('}', f);
	}
	fputc(']', f);
	free(copy);
}

/* Of this process: does not change, like what it is asked about. */
static void broker_layers_json(FILE *f)
{
	char *text = pb_confine_report_text();

	layers_json(f, text);
	free(text);
}

static void cpu_features_json(FILE *f)
{
	const char *sep = "";

	fputc('[', f);
#define FEATURE(name)                                                                                                  \
	do {                                                                                                           \
		if (__builtin_cpu_supports(name)) {                                                                    \
			fprintf(f, "%s\"%s\"", sep, name);                                                             \
			sep = ",";                                                                                     \
		}                                                                                                      \
	} while (0)
	FEATURE("sse4.2");
	FEATURE("avx");
	FEATURE("avx2");
	FEATURE("fma");
	FEATURE("bmi2");
	FEATURE("avx512f");
	FEATURE("avx512bw");
	FEATURE("avx512vl");
	FEATURE("avx512dq");
	FEATURE("avx512vnni");
	FEATURE("avx512bf16");
#undef FEATURE
	fputc(']', f);
}

static void place_json(FILE *f, const char *what, const char *path, const char *version, const char *text)
{
	fprintf(f, ",\"%s\":{\"path\":", what);
	if (path[0])
		pb_json_string(f, path);
	else
		fputs("null", f);
	fputs(",\"version\":", f);
	pb_json_string(f, version);
	fputs(",\"text\":", f);
	pb_json_string(f, text);
	fputc('}', f);
}

static void doctor(struct pb_broker *b, struct pb_client *c, uint64_t request)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_text(b, c, request, &text, &bytes);

	if (!f)
		return;
	fprintf(f, "{\"version\":\"%s\",\"layers\":", PB_VERSION);
	layers_json(f, b->probe);
	fputs(",\"broker\":", f);
	broker_layers_json(f);
	fputs(",\"spawner\":", f);
	layers_json(f, b->spawner_layers);
	fputs(",\"cpu_features\":", f);
	cpu_features_json(f);
	place_json(f, "torch", b->config.torch.path, b->config.torch.version, b->config.torch.text);
	place_json(f, "python", b->config.python.path, b->config.python.version, b->config.python.text);
	fputs(",\"models\":[", f);
	for (struct pb_model_rec *m = c->models; m; m = m->next) {
		fprintf(f, "%s{\"id\":%u,\"layers\":", m == c->models ? "" : ",", m->id);
		layers_json(f, m->layers);
		fputc('}', f);
	}
	fputs("]}", f);
	send_text(b, c, request, f, &text, &bytes);
}

void pb_report_doctor(struct pb_broker *b, struct pb_client *c, uint64_t request)
{
	struct pb_msg_spawn_probe m;
	struct pt2box_error e;

	if (b->probe) {
		doctor(b, c, request);
		return;
	}
	/* The spawner has the rights that models' processes begin with. It takes a child of its, and milliseconds. */
	if (!b->probing && pb_send(b->spawner.fd, PB_MSG_spawn_probe, &m, NULL, 0, &e)) {
		pb_client_fail(b, c, request, &e);
		return;
	}
	b->probing = true;
	if (c->n_doctor == PB_DOCTORS_MAX) {
		pb_error_set(&e, PT2BOX_LIMIT, "%d of these wait already", PB_DOCTORS_MAX);
		pb_client_fail(b, c, request, &e);
	} else {
		c->doctor[c->n_doctor++] = request;
	}
}

void pb_report_probed(struct pb_broker *b, const struct pb_msg_probed *msg)
{
	free(b->probe);
	b->probe = strndup((const char *)msg->report.data, msg->report.len);
	b->probing = false;
	for (struct pb_client *c = b->clients; c; c = c->next) {
		for (uint32_t i = 0; i < c->n_doctor; i++)
			doctor(b, c, c->doctor[i]);
		c->n_doctor = 0;
	}
}

/* ---- ps ---- */

static void process_json(FILE *f, pid_t pid)
{
	struct pb_process_memory mem;

	if (pb_process_memory(pid, &mem))
		fprintf(f, "\"pid\":%d,\"pss_bytes\":%lld,\"private_bytes\":%lld", pid, (long long)mem.pss_bytes,
			(long long)mem.private_bytes);
	else
		fprintf(f, "\"pid\":%d,\"pss_bytes\":null,\"private_bytes\":null", pid);
}

static void broker_json(FILE *f, const struct pb_broker *b)
{
	long long pages = -1;
	struct stat sb;
	FILE *statm = fopen("/proc/self/statm", "re");

	if (statm && fscanf(statm, "%*d %lld", &pages) != 1)
		pages = -1;
	if (statm)
		fclose(statm);
	process_json(f, getpid());
	fprintf(f, ",\"uptime_ms\":%llu,\"rss_bytes\":%lld", (unsigned long long)(pb_now_ns() - b->began_ns) / 1000000,
		pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE));
	/* Linux 6.2 says it; older ones say 0. */
	if (stat("/proc/self/fd", &sb) == 0 && sb.st_size > 0)
		fprintf(f, ",\"fds\":%lld", (long long)sb.st_size);
	else
		fputs(",\"fds\":null", f);
}

static long long fd_bytes(int fd)
{
	struct stat sb;

	return fd >= 0 && fstat(fd, &sb) == 0 ? (long long)sb.st_blocks * 512 : 0;
}

/* Memory that several models share is counted with the first that has it. */
static long long once(struct pb_memory *mem, uint64_t report)
{
	if (!mem || mem->reported == report)
		return 0;
	mem->reported = report;
	return fd_bytes(mem->fd);
}

static long long memfd_bytes(const struct pb_model_rec *m, uint64_t report)
{
	long long sum = fd_bytes(m->out_model) + fd_bytes(m->out_constants) + fd_bytes(m->out_manifest);

	sum += once(m->code, report) + once(m->active.memory, report) + once(m->inactive.memory, report);
	if (m->change)
		sum += fd_bytes(m->change->out_fd) + once(m->change->memory, report);
	for (const struct pb_extract_rec *x = m->extracts; x; x = x->next)
		sum += fd_bytes(x->fd);
	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next) {
		sum += fd_bytes(l->up_rw) + fd_bytes(l->down_rw);
		for (const struct pb_segment_rec *s = l->segments; s; s = s->next)
			sum += fd_bytes(s->fd_rw);
	}
	return sum;
}

static const char *state_name(const struct pb_model_rec *m)
{
	static const char *const names[] = {
		"waiting for constants", "waiting for its turn", "intake", "sharing", "starting operators", "loading", "ready", "broken",
		"ending",
	};

	return names[m->state];
}

/* Children of the warden: the template first, then the workers in the order they were forked. */
static size_t children_of(pid_t pid, pid_t *ret, size_t max)
{
	char path[80];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = pid > 0 ? fopen(path, "re") : NULL;
	if (!f)
		return 0;
	while (n < max && fscanf(f, "%d", &ret[n]) == 1)
		n++;
	fclose(f);
	return n;
}

/* How many models have it, of all that this tenant has: nobody else's can be among them. */
static uint32_t sharers(const struct pb_broker *b, const struct pb_tenant *t, const struct pb_memory *mem)
{
	uint32_t n = 0;

	for (const struct pb_client *c = b->clients; c; c = c->next)
		for (const struct pb_model_rec *m = c->tenant == t ? c->models : NULL; m; m = m->next)
			n += m->code == mem || m->active.memory == mem || m->inactive.memory == mem;
	return n;
}

static void memory_json(FILE *f, const struct pb_broker *b, const struct pb_model_rec *m, const char *name,
			const struct pb_memory *mem)
{
	if (mem)
		fprintf(f, ",\"%s\":{\"bytes\":%lld,\"models\":%u}", name, fd_bytes(mem->fd),
			sharers(b, m->tenant, mem));
	else
		fprintf(f, ",\"%s\":null", name);
}

static void constants_json(FILE *f, const struct pb_broker *b, const struct pb_model_rec *m)
{
	static const char *const states[] = {
		"waiting for its turn", "intake", "waiting for the template", "template", "staging", "applying",
	};

	memory_json(f, b, m, "code", m->code);
	/* Those inside the package are in its code. */
	memory_json(f, b, m, "constants", m->active.memory == m->code ? NULL : m->active.memory);
	memory_json(f, b, m, "inactive_constants", m->inactive.memory == m->code ? NULL : m->inactive.memory);
	fprintf(f, ",\"changes\":%u,\"change\":", m->board ? atomic_load(&m->board->committed) : 0);
	if (m->change)
		pb_json_string(f, states[m->change->state]);
	else
		fputs("null", f);
}

struct live {
	uint32_t w;
	uint64_t forked_ns;
};

static int compare_live(const void *a, const void *b)
{
	const struct live *x = a, *y = b;

	return x->forked_ns < y->forked_ns ? -1 : x->forked_ns > y->forked_ns;
}

/* Pids by index: children are listed in the order in which they were forked. */
static void pids_of(const struct pb_model_rec *m, const pid_t *kids, size_t n_kids, pid_t ret[PB_WORKERS_MAX])
{
	struct live live[PB_WORKERS_MAX] = {{0}};
	size_t n = 0;

	for (uint32_t w = 0; w < m->top; w++) {
		ret[w] = 0;
		if (m->worker[w].state != PB_W_NONE)
			live[n++] = (struct live){w, m->worker[w].forked_ns};
	}
	qsort(live, n, sizeof(live[0]), compare_live);
	for (size_t i = 0; i < n && i + 1 < n_kids; i++)
		ret[live[i].w] = kids[i + 1];
}

static void workers_json(FILE *f, const struct pb_model_rec *m, const pid_t *kids, size_t n_kids)
{
	static const char *const names[] = {"none", "forking", "ready", "dying"};
	pid_t pids[PB_WORKERS_MAX];
	bool any = false;

	pids_of(m, kids, n_kids, pids);
	fputs(",\"workers\":[", f);
	for (uint32_t w = 0; w < m->top; w++) {
		const struct pb_worker_rec *rec = &m->worker[w];

		if (!rec->used && rec->state == PB_W_NONE)
			continue;
		fprintf(f, "%s{\"index\":%u,\"state\":\"%s\",\"session\":%u,\"deaths\":%u,\"born\":%u,\"change\":%u,",
			any ? "," : "", w, rec->retiring ? "retiring" : names[rec->state], rec->session, rec->deaths,
			rec->born_seq, rec->seq);
		any = true;
		if (pids[w])
			process_json(f, pids[w]);
		else
			fputs("\"pid\":null", f);
		fputc('}', f);
	}
	fputc(']', f);
}

static void health_json(FILE *f, const struct pb_model_rec *m)
{
	const struct pb_health *h = &m->health;
	const uint64_t now = pb_now_ns();
	const char *sep = "";

	fprintf(f, ",\"health\":\"%s\",\"cause\":", pb_health_name(m, now));
	if (h->status) {
		fprintf(f, "{\"status\":\"%s\",\"signal\":%d,\"age_ms\":%llu,\"text\":", pt2box_status_name(h->status),
			h->signal, (unsigned long long)(now - h->ns) / 1000000);
		pb_json_string(f, h->text);
		fputc('}', f);
	} else {
		fputs("null", f);
	}
	fputs(",\"deaths\":{", f);
	for (int i = 0; i < PB_STATUS_MAX; i++)
		if (h->deaths[i]) {
			fprintf(f, "%s\"%s\":%u", sep, pt2box_status_name((pb_status)i), h->deaths[i]);
			sep = ",";
		}
	fputc('}', f);
}

static void model_json(FILE *f, const struct pb_broker *b, const struct pb_model_rec *m, uint64_t report)
{
	pid_t kids[PB_WORKERS_MAX + 1];
	size_t n_kids = children_of(m->pid, kids, PB_WORKERS_MAX + 1);
	uint32_t lanes = 0;

	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next)
		lanes++;
	fprintf(f, "{\"id\":%u,\"serial\":%u,\"name\":", m->id, m->serial);
	pb_json_string(f, m->model_name[0] ? m->model_name : m->opt.model);
	fputs(",\"tenant\":", f);
	pb_json_string(f, m->tenant->name);
	fprintf(f, ",\"isolate\":%s", m->opt.isolate ? "\"request\"" : "null");
	fprintf(f, ",\"state\":\"%s\",\"backend\":\"%s\",\"profile\":\"%s\",\"stateful\":%s,\"copies_inputs\":%s",
		state_name(m), m->backend, m->opt.profile, m->stateful ? "true" : "false",
		m->copy_inputs ? "true" : "false");
	fprintf(f, ",\"start_us\":%llu,\"restarts\":%u,\"lanes\":%u,\"memfd_bytes\":%lld,\"runs\":%llu",
		(unsigned long long)m->started_us, m->restarts, lanes, memfd_bytes(m, report),
		(unsigned long long)pb_lanes_done(m));
	health_json(f, m);
	constants_json(f, b, m);
	if (m->pid > 0) {
		fputs(",\"warden\":{", f);
		process_json(f, m->pid);
		fputc('}', f);
	}
	if (n_kids > 0) {
		fputs(",\"template\":{", f);
		process_json(f, kids[0]);
		fputc('}', f);
	}
	workers_json(f, m, kids, n_kids);
	if (m->ops) {
		uint32_t deaths;

		fputs(",\"ops\":{", f);
		process_json(f, pb_ops_pid(m, &deaths));
		fprintf(f, ",\"deaths\":%u}", deaths);
	}
	fputc('}', f);
}

/* A connection may have been handed on, and its program be gone. */
static void clients_json(FILE *f, const struct pb_broker *b, const struct pb_tenant *t)
{
	const char *sep = "";

	fputs(",\"clients\":[", f);
	for (const struct pb_client *c = b->clients; c; c = c->next) {
		struct pollfd p = {.fd = c->pidfd, .events = POLLIN};

		if (c->tenant != t || c->source.fd < 0)
			continue;
		fprintf(f, "%s{\"pid\":%d,\"uid\":%u,\"gone\":%s,\"program\":", sep, c->pid, c->uid,
			c->pidfd >= 0 && poll(&p, 1, 0) == 1 ? "true" : "false");
		pb_json_string(f, c->program);
		fputc('}', f);
		sep = ",";
	}
	fputs("]}", f);
}

static void tenant_json(FILE *f, const struct pb_broker *b, const struct pb_tenant *t)
{
	fputs("{\"name\":", f);
	pb_json_string(f, t->name);
	for (int l = 0; l < PB_N_LIMITS; l++)
		fprintf(f, ",\"%s\":{\"used\":%llu,\"limit\":%llu}", pb_limit_key[l], (unsigned long long)t->used[l],
			(unsigned long long)t->limit[l]);
	fprintf(f, ",\"reserved_bytes\":%llu,\"ending\":%u,\"cpu_weight\":%u", (unsigned long long)t->reserved,
		t->ending, t->conf->cpu_weight);
	clients_json(f, b, t);
}

void pb_report_ps(struct pb_broker *b, struct pb_client *c, uint64_t request)
{
	const bool all = pb_tenant_is_operator(b, c->tenant, c->uid);
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_text(b, c, request, &text, &bytes);
	const char *sep = "";

	if (!f)
		return;
	b->next_report++;
	fputs("{\"broker\":{", f);
	/* What others do shows in the broker's own numbers. */
	if (all)
		broker_json(f, b);
	fputs("},\"spawner\":{", f);
	if (all)
		process_json(f, b->spawner_pid);
	fputs("},\"models\":[", f);
	/* A tenant sees its own models, through whichever connection they were loaded; an operator everybody's. */
	for (struct pb_client *o = b->clients; o; o = o->next)
		for (struct pb_model_rec *m = all || o->tenant == c->tenant ? o->models : NULL; m; m = m->next) {
			fputs(sep, f);
			sep = ",";
			model_json(f, b, m, b->next_report);
		}
	fputs("],\"tenants\":[", f);
	sep = "";
	for (const struct pb_tenant *t = b->tenants; t; t = t->next)
		if (all || t == c->tenant) {
			fputs(sep, f);
			sep = ",";
			tenant_json(f, b, t);
		}
	fputs("]}", f);
	send_text(b, c, request, f, &text, &bytes);
}
