/* SPDX-License-Identifier: Apache-2.0 */
/* Small calls of every operator against the answers of torch 2.13.0: ops_cases.inc, which
 * make_cases.py makes. */

#include "runtime/ops/distance.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/fft.h"
#include "runtime/ops/fused.h"
#include "runtime/ops/histogram.h"
#include "runtime/ops/index.h"
#include "runtime/ops/join.h"
#include "runtime/ops/linalg.h"
#include "runtime/ops/nonzero.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/pool.h"
#include "runtime/ops/quant.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/sampler.h"
#include "runtime/ops/scaled_mm.h"
#include "runtime/ops/scan.h"
#include "runtime/ops/scatter.h"
#include "runtime/ops/search.h"
#include "runtime/ops/sort.h"
#include "runtime/ops/views.h"
#include "runtime/ops/weight_only.h"
#include "tests/unit/runtime/cases.h"

#include "tests/unit/runtime/ops_cases.inc"

int main(void)
{
	return cmocka_run_group_tests(case_tests, NULL, NULL);
}
