/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an .npy file. */
#define FORMAT PB_FORMAT_NPY
#include "tests/fuzz/cmd/array_file.inc"
