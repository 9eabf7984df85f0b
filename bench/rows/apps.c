/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: Debian's own programs, started for each unit. What they print is the checksum, taken once outside the
 * measured time; in the measured time it goes to /dev/null. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "row.h"

/* Runs a command of the shell, its output to `output`; returns 1 if it ended well. */
static uint64_t app_start(const char *command, const char *output)
{
    int status = 0;
    pid_t pid = vfork();
    if (pid == 0) {
        int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd >= 0 && dup2(fd, 1) == 1 && chdir(row_data_folder) == 0)
            execl("/bin/dash", "dash", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static uint64_t app_check(const char *command)
{
    static uint8_t buffer[65536];
    char path[256];
    uint64_t sum = 0;
    ssize_t got = -1;
    snprintf(path, sizeof(path), "%s/output", row_temp_folder);
    if (app_start(command, path) != 1)
        return 0;
    int fd = open(path, O_RDONLY);
    while (fd >= 0 && (got = read(fd, buffer, sizeof(buffer))) > 0)
        for (ssize_t i = 0; i < got; i++)
            sum = (sum ^ buffer[i]) * 0x100000001b3u;
    if (fd >= 0)
        close(fd);
    unlink(path);
    return got == 0 ? sum | 1 : 0;
}

#define APP(id, title, app_group, command)                                                         \
    static uint64_t id(void)                                                                       \
    {                                                                                              \
        return app_start("exec " command, "/dev/null");                                            \
    }                                                                                              \
    static uint64_t id##_check(void)                                                               \
    {                                                                                              \
        return app_check("exec " command);                                                         \
    }                                                                                              \
    ROW(id, title, app_group, id, .check = id##_check)

#define SHA "openssl dgst -sha256 binary binary binary binary"
#define AES "openssl enc -aes-128-cbc -bufsize 65536 -in binary -K 000102030405060708090a0b0c0d0e0f -iv 00000000000000000000000000000000"
#define NO_NI "env OPENSSL_ia32cap=~0x200000200000000:~0x20000000 "

APP(sha_ni, "openssl-sha256", "crypto", SHA);
APP(aes_ni, "openssl-aes", "crypto", AES);
APP(sha_c, "openssl-sha256-plain", "apps", NO_NI SHA);
APP(aes_c, "openssl-aes-plain", "apps", NO_NI AES);
APP(gzip_app, "gzip", "apps", "gzip -c text");
APP(gunzip_app, "gunzip", "apps", "gzip -dc text.gz");
APP(xz_app, "xz", "apps", "xz -2 -T1 -c text");
APP(python_start, "python-start", "apps", "/usr/bin/python3.11 -I -S -c 'import json, re; print(json.dumps([1]))'");
APP(python_loop, "python-loop", "apps", "/usr/bin/python3.11 -I -S loop.py");
APP(sqlite_app, "sqlite", "apps", "sqlite3 :memory: '.read queries.sql'");
APP(shell_app, "shell-loop", "apps", "dash loop.sh");
APP(bash_app, "bash-loop", "apps", "bash --norc loop.sh");
APP(mawk_app, "awk", "apps", "mawk -f words.awk text");
APP(gawk_app, "gawk", "apps", "gawk -f words.awk text");
