/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct boot of any file: whatever its headers say, the loader ends with an entry state or with a sentence. */
#include "base/fd.h"
#include "machine/boot/boot.h"
#include "machine/testing.h"

#include <stdio.h>
#include <sys/mman.h>

#define RAM (8 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine *m;
    static char initrd[64];
    static int initrd_fd = -1;
    if (!m) {
        m = test_machine(RAM, 1);
        initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
        g_assert_true(initrd_fd >= 0 && !ftruncate(initrd_fd, 5000));
        snprintf(initrd, sizeof(initrd), "/proc/self/fd/%d", initrd_fd);
    }
    autofd fd = memfd_create("kernel", MFD_CLOEXEC);
    if (fd < 0 || !size || write(fd, data, size) != (ssize_t)size)
        return 0;
    struct boot_image b = { .append = "quiet", .initrd = initrd, .rsdp_gpa = BOOT_ACPI_BASE,
                            .kernel = { .name = "fuzz", .fd = fd, .size = size } };
    g_autoptr(GError) error = NULL;
    e820_add(&b.map, 0, RAM, E820_RAM);
    bool ok = boot_image_load(m, &b, &error) && boot_set_entry(m, &b, &error);
    g_assert_true(ok == !error);
    g_assert_true(ok || error->message[0]);
    return 0;
}
