/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Store-then-load order against guest code.
 *
 * A device that stores "wake me" and then looks for work, or stores "done" and then looks whether somebody waits, needs
 * its store seen before its load; so does the guest on the other side. Where guest code keeps its own barriers, a
 * fence is enough. The software CPU of a machine with one vCPU leaves them out (a locked instruction costs twenty
 * plain ones), and then the device's side is a barrier for all threads of the process: membarrier(2).
 *
 * Thread    Any.
 */
#pragma once

#include <stdbool.h>

/* From now on guest code may run without barriers of its own. False: the kernel has no membarrier(); it may not. */
bool fence_guest_relax(void);
/* Guest code runs so: another process that works on its memory sees stores late, and may miss that it is to wake the
 * guest, or the guest that it is to wake that process. */
bool fence_guest_relaxed(void);
/* Between our store and our load. */
void fence_guest(void);
