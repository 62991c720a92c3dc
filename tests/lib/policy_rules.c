/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_rules.h. */
#include "tests/lib/policy_rules.h"

#include <errno.h>
#include <linux/audit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void bad(const char *what, const char *text)
{
	fprintf(stderr, "policy: %s: %s\n", what, text);
	abort();
}

static int number_of(const char *call)
{
	for (size_t i = 0; i < pb_n_syscalls; i++)
		if (strcmp(pb_syscalls[i].name, call) == 0)
			return pb_syscalls[i].nr;
	bad("no number", call);
}

static uint32_t verdict_of(const char *action, const char *name)
{
	static const struct {
		const char *name;
		uint32_t value;
	} errs[] = {{"EPERM", EPERM}, {"ENOSYS", ENOSYS}, {"EACCES", EACCES}, {"ENOENT", ENOENT}, {"EINVAL", EINVAL}};

	if (strcmp(action, "allow") == 0)
		return SECCOMP_RET_ALLOW;
	if (strcmp(action, "kill") == 0)
		return SECCOMP_RET_KILL_PROCESS;
	if (strcmp(action, "notify") == 0)
		return SECCOMP_RET_USER_NOTIF;
	if (strcmp(action, "refuse") == 0)
		return SECCOMP_RET_TRACE;
	for (size_t i = 0; strcmp(action, "errno") == 0 && i < sizeof(errs) / sizeof(errs[0]); i++)
		if (strcmp(name, errs[i].name) == 0)
			return SECCOMP_RET_ERRNO | errs[i].value;
	bad("action", action);
}

struct rule rule_read(const struct pb_policy_line *line)
{
	char text[512], *save = NULL, *w;
	struct rule r = {.nr = number_of(line->call)};
	char action[16], *rest;

	snprintf(text, sizeof(text), "%s", line->text);
	if (!strchr(text, '|'))
		bad("no reason", text);
	*strchr(text, '|') = '\0';
	w = strtok_r(text, " ", &save);
	if (strcmp(w, line->call) != 0)
		bad("a line about another call", line->text);
	snprintf(action, sizeof(action), "%s", strtok_r(NULL, " ", &save));
	r.verdict = verdict_of(action, strcmp(action, "errno") == 0 ? strtok_r(NULL, " ", &save) : "");
	while ((w = strtok_r(NULL, " ", &save)) != NULL) {
		struct rule_cond *c = &r.cond[r.n];

		if (strcmp(w, "and") == 0)
			continue;
		c->arg = (unsigned)(w[3] - '0');
		c->only = strcmp(strtok_r(NULL, " ", &save), "only") == 0;
		rest = strtok_r(NULL, " ", &save);
		for (char *s = NULL, *v = strtok_r(rest, ",", &s); v; v = strtok_r(NULL, ",", &s))
			c->value[c->n++] = strtoull(v, NULL, 0);
		r.n++;
	}
	return r;
}

static bool holds(const struct rule_cond *c, const struct seccomp_data *d)
{
	for (int i = 0; i < c->n; i++)
		if (c->only ? (d->args[c->arg] & ~c->value[i]) == 0 : d->args[c->arg] == c->value[i])
			return true;
	return false;
}

bool rule_matches(const struct rule *r, const struct seccomp_data *d)
{
	if (d->arch != AUDIT_ARCH_X86_64 || d->nr != r->nr)
		return false;
	for (int k = 0; k < r->n; k++)
		if (!holds(&r->cond[k], d))
			return false;
	return true;
}

uint32_t rule_default(const struct pb_policy *p)
{
	static struct {
		const struct pb_policy *p;
		uint32_t verdict;
	} known[64];
	char path[128], line[256], action[16] = "";
	size_t i;
	FILE *f;

	for (i = 0; known[i].p; i++)
		if (known[i].p == p)
			return known[i].verdict;
	snprintf(path, sizeof(path), "policies/%s.policy", p->name);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "default %15s", action) == 1)
			break;
	if (f)
		fclose(f);
	if (!action[0])
		bad("no default", path);
	known[i].verdict = verdict_of(action, "");
	known[i].p = p;
	return known[i].verdict;
}

/* Read once: they are asked about by the ten thousand. */
static const struct rule *rules_of(const struct pb_policy *p)
{
	static struct rule *known[64];
	const size_t at = (size_t)(p - pb_policies);

	if (at >= sizeof(known) / sizeof(known[0]))
		bad("too many policies", p->name);
	if (!known[at]) {
		known[at] = calloc(p->n_lines + 1, sizeof(struct rule));
		for (uint32_t i = 0; known[at] && i < p->n_lines; i++)
			known[at][i] = rule_read(&p->lines[i]);
	}
	return known[at];
}

uint32_t rule_expected(const struct pb_policy *p, const struct seccomp_data *d)
{
	const struct rule *rules = rules_of(p);
	uint32_t found = 0;
	bool any = false;

	if (d->arch != AUDIT_ARCH_X86_64 || (d->nr & RULE_X32))
		return SECCOMP_RET_KILL_PROCESS;
	for (uint32_t i = 0; i < p->n_lines; i++) {
		if (!rule_matches(&rules[i], d))
			continue;
		if (any && found != rules[i].verdict)
			bad("two lines disagree", p->lines[i].text);
		found = rules[i].verdict;
		any = true;
	}
	return any ? found : rule_default(p);
}
