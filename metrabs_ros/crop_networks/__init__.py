"""What MeTRAbs and NLF share: crops of people, backbone, pipeline, engines and export."""
