/* SPDX-License-Identifier: Apache-2.0 */
/* A second reader of the lines of policies: other code than the compiler's, for tests. */
#ifndef PT2BOX_TESTS_LIB_POLICY_RULES_H
#define PT2BOX_TESTS_LIB_POLICY_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "confine/policy.h"

#define RULE_X32 0x40000000

struct rule_cond {
	unsigned arg;
	bool only; /* no bit outside value[0] may be set */
	uint64_t value[16];
	int n;
};

struct rule {
	int nr;
	uint32_t verdict;
	struct rule_cond cond[6];
	int n;
};

/* A line that cannot be read ends the process: the test has failed. */
struct rule rule_read(const struct pb_policy_line *line);
/* @d is what the line is about. */
bool rule_matches(const struct rule *r, const struct seccomp_data *d);
/* What the text of @p says about @d: its lines, else the default of policies/NAME.policy. */
uint32_t rule_expected(const struct pb_policy *p, const struct seccomp_data *d);
/* The default line of policies/NAME.policy, read once. */
uint32_t rule_default(const struct pb_policy *p);

#endif
