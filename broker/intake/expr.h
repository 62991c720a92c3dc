/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Size expressions of generated C++ ("64L*s27", "2L + s0"): evaluated for several values of their symbols at once, so that
 * two expressions can be compared and a bound can be told apart from its default. Not a symbolic algebra: two
 * expressions that agree modulo 2^64 for two random assignments are the same.
 */
#ifndef PT2BOX_BROKER_INTAKE_EXPR_H
#define PT2BOX_BROKER_INTAKE_EXPR_H

#include "broker/intake/cursor.h"

struct pb_expr {
	bool known;	  /* false: has functions or division, or is malformed */
	bool constant;	  /* no symbol */
	bool monotone;	  /* only sums and products: grows with each symbol */
	uint64_t ones;	  /* value with every symbol 1 */
	uint64_t twos;	  /* and 2 */
	uint64_t r[2];	  /* and for two assignments of random values */
};

/* One expression up to an unbalanced ',' or closing bracket, which is left. */
struct pb_expr pb_expr_read(struct pb_cursor *c);
struct pb_expr pb_expr_number(uint64_t v);
struct pb_expr pb_expr_product(const struct pb_expr *a, const struct pb_expr *b);
bool pb_expr_same(const struct pb_expr *a, const struct pb_expr *b);

#endif
