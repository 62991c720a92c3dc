# SPDX-License-Identifier: Apache-2.0
"""The yardstick of bench.py's part "batch": a plain loop over a folder of .npy files with aoti_load_package. Prints items a second."""
import os
import sys
import time

import numpy as np
import torch
import torch._inductor

package, source, target = sys.argv[1:]
torch.set_num_threads(1)
model = torch._inductor.aoti_load_package(package)
os.makedirs(target)
names = sorted(os.listdir(source))
with torch.no_grad():
    model(torch.from_numpy(np.load(os.path.join(source, names[0]))))
    began = time.monotonic()
    for name in names:
        np.save(os.path.join(target, name), model(torch.from_numpy(np.load(os.path.join(source, name)))).numpy())
print(len(names) / (time.monotonic() - began))
