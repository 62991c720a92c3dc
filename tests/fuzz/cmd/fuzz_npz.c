/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an .npz file. */
#define FORMAT PB_FORMAT_NPZ
#include "tests/fuzz/cmd/array_file.inc"
