/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the file driver offers beside the driver's operations. */
#pragma once

#include "image/node.h"

/* The descriptor behind a node of driver "file", for copy_file_range(2) and ioctls; -1: another driver. Borrowed. */
int file_descriptor(const struct node *n);
