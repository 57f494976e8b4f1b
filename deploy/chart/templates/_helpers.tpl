{{- /* Made by `faultline kube chart`. */ -}}
{{- define "faultline.image" -}}
{{- $between := ternary "@" ":" (hasPrefix "sha256:" .Values.tag) -}}
{{- $name := ternary .Values.image (printf "%s/%s" .Values.registry .Values.image) (eq .Values.registry "") -}}
{{- printf "%s%s%s" $name $between .Values.tag -}}
{{- end }}

{{- define "faultline.pullSecrets" -}}
{{- $named := list -}}
{{- range .Values.pullSecrets }}{{ $named = append $named (dict "name" .) }}{{ end -}}
{{- $named | toJson -}}
{{- end }}

{{- define "faultline.capabilities" -}}
{{- $families := `{"container": ["KILL"], "cpu": ["SYS_NICE"], "custom": ["KILL", "SETGID", "SETPCAP", "SETUID"], "disk": ["CHOWN", "FOWNER", "FSETID", "LINUX_IMMUTABLE", "MKNOD"], "diskio": ["KILL"], "dns": ["CHOWN", "FOWNER", "FSETID", "LINUX_IMMUTABLE", "NET_ADMIN", "NET_RAW"], "file": ["CHOWN", "FOWNER", "FSETID", "LINUX_IMMUTABLE"], "kernel": ["NET_ADMIN", "SYS_BOOT"], "log": ["CHOWN", "FOWNER", "FSETID", "LINUX_IMMUTABLE"], "memory": ["IPC_LOCK"], "network": ["NET_ADMIN", "NET_RAW"], "process": ["KILL", "SYS_NICE"]}` | fromJson -}}
{{- $wanted := list "SYS_PTRACE" "SYS_ADMIN" "SYS_CHROOT" "DAC_OVERRIDE" "SYS_RESOURCE" -}}
{{- range (.Values.agent.faults | default (keys $families)) -}}
{{- $wanted = concat $wanted (get $families (first (splitList "." .)) | default list) -}}
{{- end -}}
{{- $wanted | uniq | sortAlpha | toJson -}}
{{- end }}

{{- define "faultline.operatorMore" -}}
{{- $words := ternary (list "--webhook=0.0.0.0:9443" "--webhook-service=faultline-webhook") (list "--trust-all") .Values.webhook.enabled -}}
{{- if .Values.operator.optIn }}{{ $words = append $words "--opt-in" }}{{ end -}}
{{- concat $words .Values.operator.extraArgs | toJson -}}
{{- end }}

{{- define "faultline.agentSecurity" -}}
{{- if eq .Values.profile "full" -}}
{"privileged": true, "runAsUser": 0, "readOnlyRootFilesystem": true}
{{- else -}}
{{- $made := `{"privileged": false, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true, "runAsUser": 0, "seccompProfile": {"type": "Unconfined"}, "seLinuxOptions": {"type": "spc_t"}}` | fromJson -}}
{{- $add := include "faultline.capabilities" . | fromJsonArray -}}
{{- $_ := set $made "capabilities" (dict "drop" (list "ALL") "add" $add) -}}
{{- $_ := set $made "seccompProfile" (dict "type" .Values.agent.seccomp) -}}
{{- $_ := set $made "seLinuxOptions" (dict "type" .Values.agent.seLinuxType) -}}
{{- $made | toJson -}}
{{- end -}}
{{- end }}
