/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Another manager, or a libvirtd, to which machines migrate peer to peer: we are its client.
 *
 * Spec      libvirt's RPC and URIs at 9.0.0: DRIVER[+unix|tcp|tls|ssh]://[USER@][HOST][:PORT]/PATH
 * with the parameters socket, no_verify, pkipath, keyfile, netcat. ssh runs the `ssh` program.
 * Thread    The loop thread; each call blocks a worker of its own, at most CALL_S.
 * Trust     Answers are the peer's: bounded, read by tables. Who asks for a name and a
 * password (SASL) gets those of `auth.conf` in the manager's folder of settings.
 */
#pragma once

/* From now on the core can migrate to other managers. */
void peer_register(void);
